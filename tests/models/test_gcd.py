import pytest
import torch
from mmengine.structures import BaseDataElement

from mmkd_ext.functional import info_nce, supervised_contrastive
from mmkd_ext.registry import MODELS

LABELS = [0, -1, 2, -1, 1, 0]


def build(clusters=5, num_known=3, **settings):
    head = {'type': 'mmkd_ext.ContrastiveHead', 'in_channels': 8, 'hidden_channels': 8, 'out_channels': 4}
    return MODELS.build(
        {
            'type': 'mmkd_ext.GCD',
            'backbone': {'type': 'mmkd_ext.ConvNet', 'in_channels': 3, 'channels': (4, 8)},
            'neck': {'type': 'mmpretrain.GlobalAveragePooling'},
            'contrastive_head': head,
            'num_known': num_known,
            'cluster_head': {'type': 'mmkd_ext.ClusterHead', 'in_channels': 8, 'num_clusters': clusters}
            if clusters
            else None,
            **settings,
        }
    )


def samples(labels):
    return [BaseDataElement(gt_label=torch.tensor([label])) for label in labels]


def views(num_rows=6, sizes=(8, 8)):
    return [torch.randn(num_rows, 3, size, size) for size in sizes]


def test_loss_is_that_of_the_contrastive_head_on_the_embedding():
    model, batch = build().double(), [view.double() for view in views()]
    losses = model(batch, samples(LABELS), mode='loss')
    features = model.neck(model.backbone(torch.cat(batch)))[-1]
    projection = model.contrastive_head.layers(features).unflatten(0, (2, 6))
    torch.testing.assert_close(losses['loss_info_nce'], 0.65 * info_nce(projection))
    expected = 0.35 * supervised_contrastive(projection, torch.tensor(LABELS))
    torch.testing.assert_close(losses['loss_supervised_contrastive'], expected)


@pytest.mark.parametrize('labels', [[-1] * 6, [0, 1, 2, 0, 1, 2]])
def test_any_mixture_of_rows_trains_every_parameter(labels):
    model = build()
    sum(model(views(sizes=(8, 8, 4)), samples(labels), mode='loss').values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_embedding_is_tapped_once_and_predicted_without_a_cluster_head():
    model, seen = build(clusters=0).eval(), []
    model.embedding.register_forward_hook(lambda module, args, output: seen.append(output))
    (batch,) = views(sizes=(8,))
    predicted = model(batch, samples(LABELS), mode='predict')
    assert len(seen) == 1
    torch.testing.assert_close(torch.stack([sample.embedding for sample in predicted]), seen[0])
    torch.testing.assert_close(model(batch)[0], seen[0])
    assert [int(sample.gt_label) for sample in predicted] == LABELS


def test_prediction_is_the_nearest_centre():
    model = build().eval()
    model.cluster_head.centre.normal_()
    (batch,) = views(sizes=(8,))
    predicted = model(batch, mode='predict')
    logits = model.cluster_head(model.neck(model.backbone(batch))[-1])
    torch.testing.assert_close(model(batch)[0], logits)
    for sample, logits_C in zip(predicted, logits, strict=True):
        torch.testing.assert_close(sample.known_logits, logits_C[:3])
        torch.testing.assert_close(sample.novel_logits, logits_C[None, 3:])
        torch.testing.assert_close(sample.pred_score, (logits_C / 0.1).softmax(0))
        assert int(sample.pred_label) == int(logits_C.argmax())
        assert sample.head_objective.shape == (1,)


def test_errors():
    with pytest.raises(ValueError, match=r'GCD: .*2 views.*got 1'):
        build()(views(sizes=(8,)), samples(LABELS), mode='loss')
    with pytest.raises(ValueError, match=r'GCD: .*3 known classes .*got 3'):
        build()(views(), samples([0, 1, 2, 3, -1, -1]), mode='loss')
    with pytest.raises(TypeError, match=r'GCD: .*gt_label'):
        build()(views(), None, mode='loss')
    with pytest.raises(ValueError, match=r'GCD: .*clusters .*6.*got 5'):
        build(num_known=6)
    with pytest.raises(ValueError, match=r'GCD: .*num_known .*got 0'):
        build(num_known=0)
    with pytest.raises(RuntimeError, match=r'GCD: .*\(rows, D\)'):
        build(neck=None)(views(), samples(LABELS), mode='loss')
