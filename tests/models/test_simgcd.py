import pytest
import torch
from mmengine.structures import BaseDataElement
from torch.nn import functional as F

from mmkd_ext.functional import info_nce, mean_entropy_gap, self_distillation, supervised_contrastive
from mmkd_ext.losses import ClassRelationLoss
from mmkd_ext.registry import MODELS

LABELS = [0, -1, 2, -1, 1, 0]


def build(num_known=3, **settings):
    head = {'type': 'mmkd_ext.ContrastiveHead', 'in_channels': 8, 'hidden_channels': 8, 'out_channels': 4}
    return MODELS.build(
        {
            'type': 'mmkd_ext.SimGCD',
            'backbone': {'type': 'mmkd_ext.ConvNet', 'in_channels': 3, 'channels': (4, 8)},
            'neck': {'type': 'mmpretrain.GlobalAveragePooling'},
            'head': {'type': 'mmkd_ext.CosineHead', 'in_channels': 8, 'num_classes': 5},
            'contrastive_head': head,
            'num_known': num_known,
            **settings,
        }
    )


def samples(labels):
    return [BaseDataElement(gt_label=torch.tensor([label])) for label in labels]


def views(num_rows=6, sizes=(8, 8)):
    return [torch.randn(num_rows, 3, size, size) for size in sizes]


def test_objective_is_the_papers():
    model, batch = build(teacher_temperature=0.05, entropy_weight=1.5).double(), [v.double() for v in views()]
    losses = model(batch, samples(LABELS), mode='loss')
    features = model.neck(model.backbone(torch.cat(batch)))[-1]
    logits = (F.normalize(features, dim=1) @ F.normalize(model.head.prototypes.weight, dim=1).T).unflatten(0, (2, 6))
    projection = model.contrastive_head.layers(features).unflatten(0, (2, 6))
    labels = torch.tensor(LABELS)
    expected = {
        'loss_distill': 0.65 * self_distillation(logits, teacher_temperature=0.05),
        'loss_entropy': 0.65 * 1.5 * mean_entropy_gap(logits),
        'loss_known': 0.35 * F.cross_entropy(logits[:, labels >= 0].flatten(0, 1) / 0.1, labels[labels >= 0].repeat(2)),
        'loss_info_nce': 0.65 * info_nce(projection),
        'loss_supervised_contrastive': 0.35 * supervised_contrastive(projection, labels),
    }
    assert losses.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss, msg=name)


def test_prototypes_are_unit_in_every_training_step_and_in_checkpoints():
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(3):
        sum(model(views(), samples(LABELS), mode='loss').values()).backward()
        torch.testing.assert_close(model.head.prototypes.weight.norm(dim=1), torch.ones(5))
        optimizer.step()
    torch.testing.assert_close(model.state_dict()['head.prototypes.weight'].norm(dim=1), torch.ones(5))


@pytest.mark.parametrize('labels', [[-1] * 6, [0, 1, 2, 0, 1, 2]])
def test_any_mixture_of_rows_trains_every_parameter(labels):
    model = build()
    losses = model(views(sizes=(8, 8, 4)), samples(labels), mode='loss')
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_taps_fire_once_and_a_term_of_crkd_can_be_added():
    model, seen = build(), []
    model.class_logits.register_forward_hook(lambda module, args, output: seen.append(output))
    model(views(), samples(LABELS), mode='loss')
    (logits,) = seen
    assert logits.shape == (2, 1, 6, 5)
    loss = ClassRelationLoss()(logits, torch.randn(2, 1, 6, 3), labels=torch.tensor(LABELS))
    loss.backward()
    assert model.head.prototypes.weight.grad.isfinite().all()


def test_prediction_follows_the_contract_of_the_metric():
    model = build().eval()
    (batch,) = views(sizes=(8,))
    logits = model(batch)
    assert logits.shape == (1, 1, 6, 5)
    for sample, logits_C in zip(model(batch, samples(LABELS), mode='predict'), logits[0, 0], strict=True):
        torch.testing.assert_close(sample.known_logits, logits_C[:3])
        torch.testing.assert_close(sample.novel_logits, logits_C[None, 3:])
        torch.testing.assert_close(sample.pred_score, (logits_C / 0.1).softmax(0))
        assert sample.head_objective.shape == (1,)
        assert 'gt_label' in sample


def test_errors():
    with pytest.raises(ValueError, match=r'SimGCD: .*num_known .*got 5'):
        build(num_known=5)
    with pytest.raises(ValueError, match=r'SimGCD: .*2 views'):
        build()(views(sizes=(8,)), samples(LABELS), mode='loss')
    with pytest.raises(ValueError, match=r'SimGCD: .*3 known classes .*got 4'):
        build()(views(), samples([4, 1, 2, 0, -1, -1]), mode='loss')
    with pytest.raises(ValueError, match=r'SimGCD: .*entropy_weight .*got -1'):
        build(entropy_weight=-1)
    with pytest.raises(ValueError, match=r'SimGCD: .*teacher_temperature .*got 0'):
        build(teacher_temperature=0)
