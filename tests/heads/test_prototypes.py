import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.checkpoint import get_state_dict
from torch import nn

from mmkd_ext.heads.prototypes import Prototypes
from mmkd_ext.ops.arguments import settled_unit_rows


@pytest.mark.parametrize(('kind', 'rtol'), [('f64', 1e-12), ('f32', 1e-6)])
def test_normalisation_agrees_with_the_official_code(golden, kind, rtol):
    vectors = golden('crkd_heads')
    before = torch.from_numpy(vectors[f'proto_{kind}_before'])
    prototypes = Prototypes(before.shape[1], before.shape[0]).to(before.dtype)
    prototypes.load_state_dict({'weight': before})
    prototypes.normalize_()
    expected = torch.from_numpy(vectors[f'proto_{kind}_after'])
    torch.testing.assert_close(prototypes.weight.detach(), expected, rtol=rtol, atol=0)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('dim', [1, 2, 3, 64, 257, 2048, 8192])
def test_normalisation_is_idempotent_to_the_bit(dtype, dim):
    rows = torch.randn(200, dim, dtype=torch.float64) * 10 ** torch.empty(200, 1, dtype=torch.float64).uniform_(-2, 1)
    once = settled_unit_rows(rows.to(dtype))
    assert torch.equal(settled_unit_rows(once), once)
    norms = once.double().norm(dim=1)
    assert (norms - 1).abs().max() < 8 * torch.finfo(dtype).eps


def test_zero_rows_stay_zero():
    assert torch.equal(settled_unit_rows(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_training_forward_is_linear_in_the_live_weight():
    prototypes = Prototypes(3, 2).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    weights = torch.randn(5, 2, dtype=torch.float64)
    (prototypes(x) * weights).sum().backward()
    # d<W x, G>/dW = G^T x for x on the sphere: no projection onto the sphere of W.
    unit_x = x / x.norm(dim=1, keepdim=True)
    torch.testing.assert_close(prototypes.weight.grad, weights.T @ unit_x, rtol=1e-12, atol=0)


def test_evaluation_gives_cosines_and_leaves_the_weight_alone():
    prototypes = Prototypes(6, 4, num_heads=3).double().eval()
    live = prototypes.weight.detach().clone()
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    expected = nn.functional.cosine_similarity(x[:, :, None], live[:, None], dim=-1)
    torch.testing.assert_close(prototypes(x), expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(prototypes.weight, live)


def test_evaluation_can_use_the_weights_as_they_are():
    prototypes = Prototypes(6, 4, normalize_at_eval=False).eval()
    x = torch.randn(5, 6)
    torch.testing.assert_close(prototypes(x), (x / x.norm(dim=1, keepdim=True)) @ prototypes.weight.T)


@pytest.mark.parametrize('read_state_dict', [nn.Module.state_dict, get_state_dict], ids=['torch', 'mmengine'])
def test_saved_prototypes_are_unit_and_live_ones_untouched(read_state_dict):
    model = nn.Sequential(nn.Sequential(nn.ReLU(), Prototypes(6, 4, num_heads=2)))
    live = model[0][1].weight.detach().clone()
    saved = read_state_dict(model)['0.1.weight']
    torch.testing.assert_close(saved.norm(dim=-1), torch.ones(2, 4))
    assert torch.equal(model[0][1].weight, live)


def test_keep_vars_returns_the_live_parameter():
    prototypes = Prototypes(6, 4)
    assert prototypes.state_dict(keep_vars=True)['weight'] is prototypes.weight


def test_averaged_model_with_buffers_reaches_the_prototypes():
    model = nn.Sequential(Prototypes(6, 4))
    averaged = ExponentialMovingAverage(model, momentum=0.5, update_buffers=True)
    averaged.update_parameters(model)
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(4, 6))
    averaged.update_parameters(model)
    before = averaged.module[0].weight.clone()
    averaged.update_parameters(model)
    after = averaged.module[0].weight
    torch.testing.assert_close(after, (before + settled_unit_rows(model[0].weight)) / 2)


def test_saving_and_resuming_equals_going_on_to_the_bit():
    def step(prototypes, optimizer, x):
        prototypes.normalize_()
        optimizer.zero_grad()
        prototypes(x).logsumexp(dim=-1).sum().backward()
        optimizer.step()

    batches = torch.randn(6, 8, 33)
    model = Prototypes(33, 7)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for x in batches[:3]:
        step(model, optimizer, x)
    resumed = Prototypes(33, 7)
    resumed.load_state_dict(model.state_dict())
    resumed_optimizer = torch.optim.SGD(resumed.parameters(), lr=0.3, momentum=0.9)
    resumed_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for x in batches[3:]:
        step(model, optimizer, x)
        step(resumed, resumed_optimizer, x)
    assert torch.equal(model.weight, resumed.weight)


def test_logits_keep_float32_precision_inside_autocast():
    prototypes = Prototypes(64, 5)
    x = torch.randn(9, 64).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        logits = prototypes(x)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, prototypes(x.float()))


def test_empty_sizes_are_refused():
    with pytest.raises(ValueError, match=r'Prototypes: expected positive sizes but got \(0, 4\)'):
        Prototypes(4, 0)
