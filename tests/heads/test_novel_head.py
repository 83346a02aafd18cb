import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmkd_ext.evaluation import best_head
from mmkd_ext.heads import NovelHead
from mmkd_ext.models import convert_official_crkd


def _golden_head(vectors, case):
    prefix = f'{case}_sd/'
    official = {
        f'head_unlab.{key.removeprefix(prefix)}': torch.from_numpy(value)
        for key, value in vectors.items()
        if key.startswith(prefix)
    }
    state = {key.removeprefix('novel_head.'): value for key, value in convert_official_crkd(official).items()}
    num_hidden_layers = len([key for key in state if key.startswith('layers.')]) // 2 - 1
    head = NovelHead(16, 5, num_heads=4, hidden_channels=32, embed_channels=8, num_hidden_layers=num_hidden_layers)
    head.to(state['prototypes.weight'].dtype).load_state_dict(state, strict=True)
    return head


@pytest.mark.parametrize('num_hidden_layers', [1, 2])
@pytest.mark.parametrize(('kind', 'rtol', 'atol'), [('f64', 1e-9, 1e-12), ('f32', 1e-5, 1e-6)])
def test_agrees_with_the_official_heads(golden, num_hidden_layers, kind, rtol, atol):
    vectors = golden('crkd_heads')
    case = f'multihead{num_hidden_layers}_{kind}'
    head = _golden_head(vectors, case)
    x = torch.from_numpy(vectors[f'{case}_x'])

    def compare(mode):
        for actual, name in ((head.prototypes(projection), 'logits'), (F.normalize(projection, dim=-1), 'feats')):
            expected = torch.from_numpy(vectors[f'{case}_{mode}_{name}'])
            torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)

    projection = head.project(x)
    compare('train')
    head.eval()
    projection = head.project(x)
    compare('eval')


def test_batch_statistics_are_those_of_each_head_and_call():
    head = NovelHead(6, 3, num_heads=2, hidden_channels=5, embed_channels=4).double()
    x = torch.randn(9, 6, dtype=torch.float64)
    logits = head(x)
    first, last = head.layers
    for h in range(2):
        hidden = x @ first.weight[h].T + first.bias[h]
        hidden = ((hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()).clamp_min(0)
        embedding = F.normalize(hidden @ last.weight[h].T + last.bias[h], dim=1)
        torch.testing.assert_close(logits[h], embedding @ head.prototypes.weight[h].T, rtol=1e-10, atol=1e-12)


def test_one_batch_norm_is_converted_to_sync_batch_norm():
    head = nn.SyncBatchNorm.convert_sync_batchnorm(NovelHead(6, 3, num_heads=2, hidden_channels=5, embed_channels=4))
    assert [type(norm) for norm in head.norms] == [nn.SyncBatchNorm]
    assert head.norms[0].num_features == 10


def test_objective_is_a_mean_over_steps_and_selects_the_lowest():
    head = NovelHead(6, 3, num_heads=3, hidden_channels=5, embed_channels=4)
    assert head.mean_objective.isnan().all()
    assert head.best_head == 0
    head.update_objective(torch.tensor([1.0, 5.0, 3.0], requires_grad=True))
    head.update_objective(torch.tensor([6.0, 1.0, 2.0]))
    assert head.mean_objective.tolist() == [3.5, 3.0, 2.5]
    assert head.best_head == 2
    restored = NovelHead(6, 3, num_heads=3, hidden_channels=5, embed_channels=4)
    restored.load_state_dict(head.state_dict())
    assert restored.best_head == 2
    head.reset_objective()
    assert head.mean_objective.isnan().all()


@pytest.mark.parametrize(
    'objective', [[torch.nan, 2.0, 1.0], [3.0, torch.nan, 1.0], [torch.nan] * 3, [torch.inf, torch.nan, 9.0]]
)
def test_a_head_without_an_objective_is_not_the_best(objective):
    head = NovelHead(6, 3, num_heads=3, hidden_channels=5, embed_channels=4)
    head.update_objective(torch.tensor(objective))
    assert head.best_head == best_head(objective)


def test_needs_a_hidden_layer():
    with pytest.raises(ValueError, match='NovelHead: expected num_hidden_layers >= 1 but got 0'):
        NovelHead(6, 3, num_hidden_layers=0)
