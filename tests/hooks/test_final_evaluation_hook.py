from types import SimpleNamespace

import pytest

from mmkd_ext.hooks.report_hooks import FinalEvaluationHook


def final(hook, done):
    """Modes whose epoch is final after so many of ten iterations."""
    runner = SimpleNamespace(iter=done, max_iters=10)
    return {mode for mode in ('train', 'val', 'test') if hook._is_final(runner, mode)}


@pytest.fixture
def hook():
    return FinalEvaluationHook()


def test_evaluations_outside_of_training(hook):
    assert final(hook, 0) == final(hook, 4) == {'val', 'test'}


def test_of_training_the_last_validation(hook):
    hook.before_train(None)
    assert final(hook, 9) == {'test'}
    assert final(hook, 10) == {'val', 'test'}


def test_a_validation_after_a_training_that_stopped_early(hook):
    hook.before_train(None)
    hook.after_train(None)
    assert final(hook, 4) == {'val', 'test'}
