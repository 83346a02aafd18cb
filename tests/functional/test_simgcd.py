"""SimGCD's losses against loops in float64."""

import math

import pytest
import torch

from mmkd_ext.functional import mean_entropy_gap, self_distillation

F64 = {'rtol': 1e-10, 'atol': 1e-12}


def softmax(values, temperature):
    top = max(values)
    weights = [math.exp((value - top) / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]


def looped_distillation(logits, temperature, teacher_temperature):
    num_views, batch_size, _ = logits.shape
    terms = []
    for v in range(num_views):
        for o in range(num_views):
            for b in range(batch_size):
                if o != v:
                    target = softmax(logits[v, b].tolist(), teacher_temperature)
                    answer = softmax(logits[o, b].tolist(), temperature)
                    terms.append(-sum(t * math.log(a) for t, a in zip(target, answer, strict=True)))
    return torch.tensor(sum(terms) / len(terms), dtype=torch.float64)


def looped_gap(logits, temperature):
    answers = [softmax(row.tolist(), temperature) for row in logits.flatten(0, 1)]
    mean = [sum(column) / len(answers) for column in zip(*answers, strict=True)]
    return torch.tensor(math.log(len(mean)) + sum(p * math.log(p) for p in mean), dtype=torch.float64)


@pytest.mark.parametrize('num_views', [2, 3])
def test_formulas(num_views):
    logits = torch.rand(num_views, 5, 4, dtype=torch.float64) * 2 - 1
    for teacher_temperature in (0.07, 0.04):
        torch.testing.assert_close(
            self_distillation(logits, temperature=0.1, teacher_temperature=teacher_temperature),
            looped_distillation(logits, 0.1, teacher_temperature),
            **F64,
        )
    torch.testing.assert_close(mean_entropy_gap(logits, temperature=0.1), looped_gap(logits, 0.1), **F64)


def test_gradients_flow_through_predictions_alone():
    logits = (torch.rand(2, 3, 4, dtype=torch.float64) * 2 - 1).requires_grad_()
    torch.autograd.gradcheck(lambda x: mean_entropy_gap(x, temperature=0.3), logits)
    # With one view's targets fixed, the gradient of the other is softmax - target, as of any cross-entropy.
    self_distillation(logits, temperature=0.3, teacher_temperature=0.2).backward()
    with torch.no_grad():
        expected = ((logits / 0.3).softmax(-1) - (logits.flip(0) / 0.2).softmax(-1)) / (0.3 * 2 * 3)
    torch.testing.assert_close(logits.grad, expected, **F64)


def test_gap_is_zero_for_classes_used_alike_and_log_c_for_a_single_one():
    one_each = 20 * torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    assert mean_entropy_gap(one_each) == pytest.approx(0, abs=1e-9)
    collapsed = torch.zeros(2, 6, 4, dtype=torch.float64)
    collapsed[..., 1] = 20
    assert mean_entropy_gap(collapsed) == pytest.approx(math.log(4))
    assert mean_entropy_gap(torch.zeros(2, 6, 4)) == pytest.approx(0, abs=1e-6)


def test_invariances():
    logits = torch.rand(2, 5, 4, dtype=torch.float64)
    rows, classes = torch.randperm(5), torch.randperm(4)
    for loss in (self_distillation, mean_entropy_gap):
        expected = loss(logits)
        torch.testing.assert_close(loss(logits[:, rows][..., classes]), expected, **F64)
        torch.testing.assert_close(loss(logits.flip(0) + 3), expected, **F64)


def test_finite_and_float32_for_extreme_logits_under_autocast():
    for loss in [self_distillation, mean_entropy_gap]:
        for dtype in [torch.float16, torch.bfloat16, torch.float32]:
            logits = (torch.randn(2, 5, 4) * 1e4).to(dtype).requires_grad_()
            with torch.autocast('cpu', torch.bfloat16):
                value = loss(logits)
            value.backward()
            assert value.dtype == torch.float32
            assert value.isfinite()
            assert logits.grad.isfinite().all()


@pytest.mark.parametrize('loss', [self_distillation, mean_entropy_gap])
def test_empty_batch_is_a_differentiable_zero(loss):
    logits = torch.zeros(2, 0, 4, requires_grad=True)
    value = loss(logits)
    value.backward()
    assert value == 0


def test_errors():
    logits = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match='self_distillation: expected teacher_temperature > 0 but got 0'):
        self_distillation(logits, teacher_temperature=0)
    with pytest.raises(ValueError, match=r'self_distillation: expected logits of shape \(V, B, C\) but got \(3, 4\)'):
        self_distillation(logits[0])
    with pytest.raises(ValueError, match='expected V >= 2 views'):
        self_distillation(logits[:1])
    with pytest.raises(ValueError, match='mean_entropy_gap: expected temperature > 0 but got -1'):
        mean_entropy_gap(logits, temperature=-1)
    with pytest.raises(ValueError, match=r'mean_entropy_gap: expected logits of shape \(V, B, C\) but got \(3, 4\)'):
        mean_entropy_gap(logits[0])
