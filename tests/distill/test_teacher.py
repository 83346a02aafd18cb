import copy
import pickle

import pytest
import torch
from torch import nn

from mmkd_ext.distill import FrozenTeacher


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))


def test_features_are_those_of_the_model_in_eval_mode_without_graph(model):
    x = torch.randn(8, 3)
    teacher = FrozenTeacher(model, ['1', '3:in'])
    features = teacher.features(x)
    expected = copy.deepcopy(model).eval()[:2](x)
    torch.testing.assert_close(features['1'], expected, rtol=0, atol=0)
    torch.testing.assert_close(features['3:in'], expected, rtol=0, atol=0)
    assert not features['1'].requires_grad


def test_nothing_changes(model):
    model[1](torch.randn(5, 4))  # statistics that a train-mode forward would move
    before = copy.deepcopy(model.state_dict())
    teacher = FrozenTeacher(model, ['3'])
    for _ in range(3):
        teacher.features(torch.randn(8, 3))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_invisible_to_the_module_that_holds_it(model):
    student = nn.Linear(2, 2)
    student.teacher = FrozenTeacher(model, ['3'])
    assert set(student.state_dict()) == {'weight', 'bias'}
    assert len(list(student.parameters())) == 2
    student.train()
    assert not model.training


def test_copies_of_the_student_share_it_and_it_still_records(model):
    student = nn.Linear(2, 2)
    student.teacher = FrozenTeacher(model, ['3'])
    ema = copy.deepcopy(student)
    assert ema.teacher is student.teacher
    x = torch.randn(2, 3)
    assert torch.equal(ema.teacher.features(x)['3'], student.teacher.features(x)['3'])


def test_pickles(model):
    teacher = FrozenTeacher(model, ['3'])
    x = torch.randn(2, 3)
    assert torch.equal(pickle.loads(pickle.dumps(teacher)).features(x)['3'], teacher.features(x)['3'])


def test_runs_in_the_autocast_of_the_caller(model):
    with torch.autocast('cpu', torch.bfloat16):
        features = FrozenTeacher(model, ['3']).features(torch.randn(2, 3))
    assert features['3'].dtype == torch.bfloat16


def test_moves_to_a_device(model):
    assert FrozenTeacher(model, ['3']).to('meta').model[0].weight.device.type == 'meta'


def test_messages_name_the_teacher(model):
    with pytest.raises(KeyError, match='teacher: expected a module'):
        FrozenTeacher(model, ['neck'])


class Host(nn.Module):
    """A model with the forward of OpenMMLab."""

    def __init__(self, in_channels=3):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 2, 3)
        self.calls = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.calls.append((data_samples, mode))
        return self.stem(inputs[0] if isinstance(inputs, list) else inputs)


def test_a_plain_model_gets_only_the_inputs(model):
    x = torch.randn(2, 3)
    features = FrozenTeacher(model, ['3']).features(inputs=x, data_samples=['a', 'b'], mode='tensor')
    torch.testing.assert_close(features['3'], model(x))


def test_a_host_model_gets_samples_and_mode():
    host = Host()
    FrozenTeacher(host, ['stem']).features(inputs=torch.randn(2, 3, 4, 4), data_samples=['a', 'b'], mode='tensor')
    assert host.calls == [(['a', 'b'], 'tensor')]


def test_inputs_are_adapted():
    x = torch.randn(2, 3, 4, 4)
    host = Host()
    features = FrozenTeacher(host, ['stem'], adapt=lambda inputs: 2 * inputs).features(x)
    torch.testing.assert_close(features['stem'], host.stem(2 * x))


@pytest.mark.parametrize('wrap', [lambda x: x, lambda x: [x, x]])
def test_other_channels(wrap):
    teacher = FrozenTeacher(Host(in_channels=1), ['stem'], caller="teacher 'grey'")
    message = r"teacher 'grey': expected inputs of 1 channels but the student gets images of shape \(2, 3, 4, 4\)"
    with pytest.raises(ValueError, match=message):
        teacher.features(wrap(torch.randn(2, 3, 4, 4)))


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match='Kernel size'):
        FrozenTeacher(Host(), ['stem']).features(torch.randn(2, 3, 2, 2))


class Stages(nn.Module):
    """Counts the forwards of its parts."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.num_calls = {'first': 0, 'second': 0, 'head': 0}
        for name in self.num_calls:
            self.get_submodule(name).register_forward_pre_hook(self.counter(name))
        self.was_closed = 0

    def counter(self, name):
        def count(module, args):
            self.num_calls[name] += 1

        return count

    def forward(self, x):
        try:
            x = self.second(self.first(x).relu())
            try:
                return self.head(x)
            except Exception:
                raise AssertionError('the signal must not look like an error') from None
        finally:
            self.was_closed += 1


@pytest.mark.parametrize(
    ('taps', 'num_calls'),
    [
        (['first'], {'first': 3, 'second': 1, 'head': 1}),
        (['second', 'first'], {'first': 3, 'second': 3, 'head': 1}),
        (['head:in'], {'first': 3, 'second': 3, 'head': 1}),
        (['first', 'head'], {'first': 3, 'second': 3, 'head': 3}),
    ],
)
def test_after_the_first_forward_nothing_runs_behind_the_last_tap(taps, num_calls):
    model = Stages()
    teacher = FrozenTeacher(model, taps)
    inputs = torch.randn(3, 5, 3)
    features = [teacher.features(x) for x in inputs]
    # The hook of a tapped input runs after the counting one, which was there first.
    num_calls = {**num_calls, 'head': 3} if 'head:in' in taps else num_calls
    assert model.num_calls == num_calls
    assert model.was_closed == 3
    for x, found in zip(inputs, features, strict=True):
        whole = FrozenTeacher(model, taps).features(x)
        assert list(found) == list(whole) == taps
        for tap in taps:
            assert torch.equal(found[tap], whole[tap])


class Overwriting(nn.Sequential):
    """Writes into what its first layer returned, behind the second layer."""

    def forward(self, x):
        first = self[0](x)
        second = self[1](first)
        return first.add_(second)


def test_a_tensor_that_is_overwritten_behind_the_last_tap_is_still_refused():
    teacher = FrozenTeacher(Overwriting(nn.Linear(3, 3), nn.Linear(3, 3)), ['0', '1'])
    for _ in range(2):  # the check is not lost on a call that failed
        with pytest.raises(RuntimeError, match=r"tap '0' .* overwritten in place"):
            teacher.features(torch.randn(2, 3))


def test_a_stopped_forward_leaves_gradients_and_autocast_as_they_were(model):
    teacher = FrozenTeacher(model, ['0'])
    for _ in range(2):
        with torch.autocast('cpu', torch.bfloat16):
            teacher.features(torch.randn(2, 3))
            assert torch.is_autocast_enabled('cpu')
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled('cpu')


def test_an_error_before_the_last_tap_is_no_stop(model):
    teacher = FrozenTeacher(model, ['3'])
    teacher.features(torch.randn(2, 3))
    with pytest.raises(RuntimeError, match='shapes cannot be multiplied'):
        teacher.features(torch.randn(2, 7))
    assert teacher.features(torch.randn(2, 3))['3'].shape == (2, 2)


@pytest.mark.parametrize('compiler', [{'backend': 'eager', 'fullgraph': True}, {'backend': 'aot_eager'}])
def test_a_compiled_teacher_has_the_same_features(model, compiler):
    teacher = FrozenTeacher(model, ['1', '3:in'], compiler=compiler)
    for _ in range(2):
        x = torch.randn(8, 3)
        features, expected = teacher.features(x), FrozenTeacher(model, ['1', '3:in']).features(x)
        for tap in expected:
            torch.testing.assert_close(features[tap], expected[tap])
            assert not features[tap].requires_grad


def test_a_compiler_never_sees_what_lies_behind_the_last_tap(model):
    """The graph returns the taps and nothing else, so that a backend may drop the rest."""
    outputs = []

    def backend(graph, example_inputs):
        outputs.append(next(node for node in graph.graph.nodes if node.op == 'output').args[0])
        return graph.forward

    teacher = FrozenTeacher(model, ['0'], compiler={'backend': backend, 'fullgraph': True})
    teacher.features(torch.randn(8, 3))
    assert [len(nodes) for nodes in outputs] == [1]
