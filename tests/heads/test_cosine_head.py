import torch
from torch.nn import functional as F

from mmkd_ext.heads import CosineHead
from mmkd_ext.registry import MODELS


def test_logits_are_cosines_whatever_the_length_of_the_features():
    head = MODELS.build({'type': 'mmkd_ext.CosineHead', 'in_channels': 6, 'num_classes': 4}).eval()
    features = torch.randn(2, 5, 6)
    expected = F.cosine_similarity(features.unsqueeze(2), head.prototypes.weight, dim=-1)
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head(7 * features), expected)
    assert head.num_classes == 4


def test_frozen_teacher_of_the_official_code(golden):
    """Its evaluation uses prototypes that are not quite unit."""
    vectors = golden('crkd_train_step')
    for case in ('2large', '2large_2small'):
        weight = torch.from_numpy(vectors[f'{case}_f64_old/head_lab.prototypes.weight'])
        head = CosineHead(weight.shape[1], weight.shape[0], normalize_at_eval=False).double().eval()
        head.load_state_dict({'prototypes.weight': weight})
        logits = head(torch.from_numpy(vectors[f'{case}_f64_feats']))
        expected = torch.from_numpy(vectors[f'{case}_f64_old_logits_lab'])
        torch.testing.assert_close(logits[: len(expected)], expected, rtol=1e-9, atol=1e-12)
