import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmkd_ext.distill import Recorder
from mmkd_ext.distill.features import AllTapsFired


class Net(nn.Module):
    """A backbone that returns a tuple, called in the usual way and, on demand, in unusual ones."""

    def __init__(self, call='usual'):
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=call == 'inplace'))
        self.head = nn.Linear(4, 2)
        self.call = call

    def forward(self, x):
        x = self.stem(x)
        if self.call == 'twice':
            x = self.stem(torch.zeros(1, 3)) + x
        if self.call == 'checkpoint':
            x = checkpoint(self.body, x, use_reentrant=False)
        elif self.call == 'residual':
            out = self.body(x)
            out += x
            x = out
        else:
            x = self.body(x)
        if self.call == 'direct':
            return self.head.forward(x)
        return self.head(input=x) if self.call == 'keyword' else self.head(x)


X = torch.linspace(-1, 1, 6).reshape(2, 3)


def test_records_outputs_and_inputs_with_their_graph():
    model = Net()
    with Recorder(model, ['stem', 'body', 'head:in', 'head']).record() as features:
        output = model(X)
    stem = X @ model.stem.weight.T + model.stem.bias
    torch.testing.assert_close(features['stem'], stem)
    torch.testing.assert_close(features['body'], model.body(stem))
    assert features['head:in'] is features['body']
    assert features['head'] is output
    features['stem'].sum().backward()
    torch.testing.assert_close(model.stem.bias.grad, torch.full((4,), 2.0))


def test_keyword_arguments_are_inputs_too():
    model = Net('keyword')
    with Recorder(model, ['body', 'head:in']).record() as features:
        model(X)
    assert features['head:in'] is features['body']


def test_idle_outside_of_a_recording():
    model = Net()
    recorder = Recorder(model, ['stem'])
    model(X)
    model(X)
    with recorder.record() as first:
        model(X)
    with recorder.record() as second:
        model(X + 1)
    assert not torch.equal(first['stem'], second['stem'])


@pytest.mark.parametrize(
    ('call', 'tap', 'message'),
    [
        ('direct', 'head', r"student: tap 'head' expected to fire once .* 0 times; .*\.forward\(\) is called directly"),
        ('direct', 'head:in', r'fired 0 times'),
        ('twice', 'stem', r'fired 2 times; .* tap one that runs once'),
        ('residual', 'body', r"tap 'body' .* overwritten in place later in the forward"),
        ('inplace', 'body.0', r"tap 'body.0' .* overwritten in place"),
        ('inplace', 'body.1:in', r"tap 'body.1:in' .* overwritten in place"),
    ],
)
def test_unusable_taps(call, tap, message):
    model = Net(call)
    recorder = Recorder(model, [tap])
    with pytest.raises(RuntimeError, match=message), recorder.record():
        model(X)


def test_goes_on_after_an_error_in_the_forward():
    model = Net()
    recorder = Recorder(model, ['stem'])
    with pytest.raises(RuntimeError, match='shapes cannot be multiplied'), recorder.record():
        model(X[:, :2])
    with recorder.record() as features:
        model(X)
    assert features['stem'].shape == (2, 4)


def test_start_forgets_an_interrupted_recording():
    model = Net()
    recorder = Recorder(model, ['stem'])
    recorder.start()
    model(X)
    recorder.start()
    model(X)
    assert recorder.stop()['stem'].shape == (2, 4)


def test_keeps_no_graph():
    model = Net()
    recorder = Recorder(model, ['stem'])
    with recorder.record() as features:
        model(X)
    feature = weakref.ref(features['stem'])
    del features
    gc.collect()
    assert feature() is None


def test_recomputation_in_the_backward_records_nothing():
    model = Net('checkpoint')
    recorder = Recorder(model, ['body.0'])
    with recorder.record() as features:
        loss = model(X).sum()
    assert features['body.0'].requires_grad
    (loss + features['body.0'].sum()).backward()
    assert recorder._probes['body.0'].records == []


@pytest.mark.parametrize('clone', [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_of_the_model_has_probes_of_its_own(clone):
    model = Net()
    recorder = Recorder(model, ['stem', 'head:in'])
    model_2, recorder_2 = clone((model, recorder))
    with recorder.record() as features, recorder_2.record() as features_2:
        model(X)
        model_2(X + 1)
    torch.testing.assert_close(features['stem'], model.stem(X))
    torch.testing.assert_close(features_2['stem'], model.stem(X + 1))


def test_a_copy_made_while_recording_does_not_write_into_the_original():
    model = Net()
    with Recorder(model, ['stem']).record() as features:
        copy.deepcopy(model)(X)
        model(X)
    torch.testing.assert_close(features['stem'], model.stem(X))


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_model_compiled_after_registration(backend):
    model = Net()
    recorder = Recorder(model, ['stem', 'head:in'])
    model.forward = torch.compile(model.forward, backend=backend, fullgraph=True)
    for x in (X, X + 1):
        model(x)  # idle
        with recorder.record() as features:
            model(x)
        torch.testing.assert_close(features['stem'], model.stem(x))
        torch.testing.assert_close(features['head:in'], model.body(model.stem(x)))
        assert features['stem'].requires_grad


def test_a_forward_stops_when_all_taps_have_fired():
    model = Net()
    recorder = Recorder(model, ['stem', 'body'])
    reached = []
    model.head.register_forward_pre_hook(lambda module, args: reached.append(module))
    with recorder.record(stop_early=True) as features, pytest.raises(AllTapsFired):
        model(X)
    assert not reached
    torch.testing.assert_close(features['body'], model.body(features['stem']))
    with recorder.record() as features:  # the next one is whole again
        model(X)
    assert reached


def test_remove_takes_the_hooks_off():
    model = Net()
    recorder = Recorder(model, ['stem', 'head:in'])
    recorder.remove()
    assert not model.stem._forward_hooks
    assert not model.head._forward_pre_hooks


def test_unknown_module_leaves_no_hook_behind():
    model = Net()
    with pytest.raises(KeyError, match='teacher: expected a module'):
        Recorder(model, ['stem', 'neck'], caller='teacher')
    assert not model.stem._forward_hooks
