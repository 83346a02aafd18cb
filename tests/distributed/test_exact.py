"""1, 2 and 4 processes over gloo against one process with the whole batch: values, averaged gradients, rows.

Each world size is started once and computes all cases in both precisions for all shares; tests then compare.
"""

import inspect
from datetime import timedelta
from functools import partial

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import distributed, nn

from mmkd_ext import losses
from mmkd_ext.engine.cpu import SyncBatchNorm, convert_sync_batch_norm
from mmkd_ext.functional import sinkhorn_knopp, swapped_prediction
from mmkd_ext.heads import ContrastiveHead, CosineHead, NovelHead
from mmkd_ext.models import NCDClassifier, SimGCD
from mmkd_ext.models.multi_view import discovery_targets, known_class_loss
from mmkd_ext.ops.distributed import sum_with_grad

NUM_SAMPLES, NUM_VIEWS, NUM_HEADS, NUM_KNOWN, NUM_CLASSES = 12, 2, 3, 3, 5
# By number of processes. The last of each leaves a process without any sample.
SHARES = {
    1: [(12,)],
    2: [(6, 6), (9, 3), (0, 12)],
    4: [(3, 3, 3, 3), (5, 1, 4, 2), (0, 6, 1, 5)],
}
# -1 is unlabelled. The first three, so in some shares the first process, have none.
LABELS = {
    'mixed': torch.tensor([0, 1, 2, -1, -1, 1, -1, 0, -1, -1, 2, -1]),
    'no unlabelled': torch.tensor([0, 1, 2, 0, 1, 1, 2, 0, 2, 1, 2, 0]),
    'one unlabelled': torch.tensor([0, 1, 2, 0, 1, 1, -1, 0, 2, 1, 2, 0]),
    'none labelled': torch.full((12,), -1),
}
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def relation(kind, **settings):
    """Case of a relation loss: features of the student are a linear layer of the inputs."""

    def case(batch, weight):
        loss = getattr(losses, kind)(gather=True, **settings)
        extras = {'labels': batch['labels']} if isinstance(loss, losses.LabelledRelationLoss) else {}
        if isinstance(loss, losses.TupleRelationLoss):
            extras = {'iteration': 7}
        return loss(batch['inputs'] @ weight, batch['teacher'], **extras), None

    return case


def metric(kind, **settings):
    """Case of a loss of metric learning: embeddings are a linear layer of the inputs."""

    def case(batch, weight):
        return getattr(losses, kind)(gather=True, **settings)(batch['inputs'] @ weight, batch['labels']), None

    return case


def class_logits(batch, weight):
    """Cosine-like logits (V, H, B, C) of both networks: another linear layer of the inputs per view and head."""
    layers = weight.new_tensor([0.5, -1.0, 1.5, 0.7, -0.4, 1.2]).view(NUM_VIEWS, NUM_HEADS, 1, 1)
    student = torch.tanh(batch['inputs'] @ (weight * layers))[..., :NUM_CLASSES]
    return student, torch.tanh(batch['teacher'][:, :NUM_KNOWN] * layers[:, :1])


def class_relation(labels, **settings):
    def case(batch, weight):
        loss = losses.ClassRelationLoss(1.0, **settings)
        return loss(*class_logits(batch, weight), labels=batch[labels]), None

    return case


def discovery(labels, num_iters=3):
    """Assignments over all unlabelled rows, then the swapped prediction of each head."""

    def assign(logits):
        return sinkhorn_knopp(logits, num_iters=num_iters, gather=True)

    def case(batch, weight):
        logits, _ = class_logits(batch, weight)
        targets = discovery_targets(logits, batch[labels], num_known=NUM_KNOWN, num_large=NUM_VIEWS, assign=assign)
        loss_per_head = swapped_prediction(logits, targets, num_large=NUM_VIEWS, gather=True)
        return loss_per_head, targets.transpose(0, 2)

    return case


def supervised(labels):
    def case(batch, weight):
        logits = class_logits(batch, weight)[0][:, 0, :, :NUM_KNOWN]
        return known_class_loss(logits, batch[labels], temperature=0.1, gather=True), None

    return case


def generalised_discovery(batch, weight):
    """Assignments of unlabelled rows to all classes, balanced over the rows of all processes."""
    assign = partial(sinkhorn_knopp, gather=True)
    logits, _ = class_logits(batch, weight)
    targets = discovery_targets(
        logits, batch['mixed'], num_known=NUM_KNOWN, num_large=NUM_VIEWS, assign=assign, assign_to='all'
    )
    return swapped_prediction(logits, targets, num_large=NUM_VIEWS, gather=True), targets.transpose(0, 2)


def contrastive_head(batch, weight):
    """Both contrastive losses, without the batch norm, which is a case of its own."""
    head = ContrastiveHead(6, 8, 4).to(weight.dtype)
    head.layers = nn.Sequential()
    features = batch['inputs'] @ weight
    return torch.stack([*head.loss(torch.stack([features, batch['teacher']]), batch['mixed']).values()]), None


def simgcd(batch, weight):
    """The whole objective of SimGCD."""
    torch.manual_seed(0)
    head = ContrastiveHead(6, 8, 4)
    head.layers = nn.Sequential()
    model = SimGCD(nn.Identity(), CosineHead(6, NUM_CLASSES), head, NUM_KNOWN).to(weight.dtype)
    features = batch['inputs'] @ weight
    samples = [BaseDataElement(gt_label=label[None]) for label in batch['mixed']]
    return torch.stack([*model([features, features + batch['teacher']], samples, mode='loss').values()]), None


def batch_norm(batch, weight):
    features = batch['inputs'] @ weight
    norm = (SyncBatchNorm if distributed.is_initialized() else nn.BatchNorm1d)(features.shape[1]).to(features.dtype)
    output = norm(features)
    return sum_with_grad((output * batch['teacher']).tanh().sum()) / NUM_SAMPLES, output


def classifier(batch, weight):
    """Both objectives of the whole model, and what it remembers of each head; all rows of a view in one batch norm."""
    torch.manual_seed(0)
    settings = {'in_channels': 6, 'num_heads': NUM_HEADS, 'hidden_channels': 8, 'embed_channels': 4}
    novel_head, overcluster_head = (NovelHead(num_classes=n, **settings) for n in (2, 4))
    model = NCDClassifier(nn.Identity(), CosineHead(6, NUM_KNOWN), None, novel_head, overcluster_head).to(weight.dtype)
    if distributed.is_initialized():
        convert_sync_batch_norm(model)
    features = batch['inputs'] @ weight
    samples = [BaseDataElement(gt_label=label[None]) for label in batch['mixed']]
    found = model([features, features + batch['teacher']], samples, mode='loss')
    return torch.stack([*found.values(), *novel_head.mean_objective, *overcluster_head.mean_objective]), None


CASES = {
    **{f'RKDDistanceLoss {r}': relation('RKDDistanceLoss', reduction=r) for r in ('official', 'sum')},
    'RKDDistanceLoss linear': relation('RKDDistanceLoss', delta=0.05),
    **{f'RKDAngleLoss {r}': relation('RKDAngleLoss', reduction=r) for r in ('official', 'distinct')},
    'SPLoss': relation('SPLoss'),
    'CCKDLoss': relation('CCKDLoss'),
    'CCKDLoss raw': relation('CCKDLoss', normalize=False, gamma=0.05),
    'CCKDLoss polynomial': relation('CCKDLoss', order=2),
    'CCKDLoss median': relation('CCKDLoss', gamma='median'),
    'CCKDLoss bilinear': relation('CCKDLoss', kernel='bilinear'),
    'CCKDLoss mmd': relation('CCKDLoss', kernel='mmd'),
    'IntraCategoryLoss': relation('IntraCategoryLoss'),
    'IntraCategoryLoss filtered': relation('IntraCategoryLoss', filtered=True, detach_centre=True),
    'InterCategoryLoss': relation('InterCategoryLoss'),
    'CategoryCentreLoss': relation('CategoryCentreLoss'),
    'DISTLoss': relation('DISTLoss', beta=2.0, temperature=2.0),
    'DISTLoss standardised': relation('DISTLoss', standardize=True),
    'DISTLoss many labels': relation('DISTLoss', multi_label=True),
    **{f'PKTLoss {form}': relation('PKTLoss', form=form) for form in ('official', 'paper')},
    'MLKDLoss': relation('MLKDLoss', temperature=1.0),
    'SKDLoss': relation('SKDLoss'),
    'HardDarkRankLoss': relation('HardDarkRankLoss'),
    'TupleRelationLoss': relation('TupleRelationLoss', num_tuples=64),
    **{f'TripletLoss {m}': metric('TripletLoss', mining=m) for m in ('all', 'semi-hard', 'distance')},
    'ContrastiveLoss': metric('ContrastiveLoss', mining='random'),
    **{f'ClassRelationLoss {labels}': class_relation(labels) for labels in LABELS},
    'ClassRelationLoss paper': class_relation(
        'mixed', divergence='kl', weight_temperature=0.1, weight_mean='per_view_head'
    ),
    'ClassRelationLoss detached': class_relation('mixed', detach_weight=True),
    'ClassRelationLoss without weight': class_relation('mixed', weight='none'),
    **{f'discovery {labels}': discovery(labels) for labels in LABELS},
    'discovery without iterations': discovery('mixed', num_iters=0),
    **{f'supervised {labels}': supervised(labels) for labels in LABELS},
    'batch norm': batch_norm,
    'generalised discovery': generalised_discovery,
    'ContrastiveHead': contrastive_head,
    'SimGCD': simgcd,
    'NCDClassifier': classifier,
}
# A process of these always has a batch.
NEVER_EMPTY = {'NCDClassifier', 'SimGCD'}


def whole_batch(dtype):
    generator = torch.Generator().manual_seed(0)
    inputs, teacher = (torch.randn(NUM_SAMPLES, 6, dtype=torch.float64, generator=generator) for _ in range(2))
    weight = torch.randn(6, 6, dtype=torch.float64, generator=generator) / 6**0.5
    batch = {'inputs': inputs.to(dtype), 'teacher': teacher.to(dtype), 'labels': LABELS['mixed'], **LABELS}
    return batch, weight.to(dtype)


def compute(name, dtype, shares=(NUM_SAMPLES,), rank=0):
    """Loss, gradient of the weights as DDP averages it, and what belongs to this process's rows."""
    batch, weight = whole_batch(dtype)
    own = {key: value.split(shares)[rank] for key, value in batch.items()}
    loss, rows = CASES[name](own, weight.requires_grad_())
    loss.sum().backward()
    if len(shares) > 1:
        distributed.all_reduce(weight.grad)
    return loss.detach(), weight.grad / len(shares), torch.empty(0) if rows is None else rows.detach()


def jobs(world_size):
    return [
        (name, dtype, shares)
        for shares in SHARES[world_size]
        for dtype in TOLERANCE
        for name in CASES
        if 0 not in shares or name not in NEVER_EMPTY
    ]


def work(rank, folder, world_size):
    torch.set_num_threads(1)
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size, timeout=timedelta(seconds=60)
    )
    torch.save([compute(*job, rank) for job in jobs(world_size)], f'{folder}/{rank}.pth')
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """By case, dtype and shares: what each process computed."""
    found = {}
    for world_size in SHARES:
        folder = tmp_path_factory.mktemp('processes')
        torch.multiprocessing.start_processes(work, (folder, world_size), nprocs=world_size, start_method='fork')
        per_rank = [torch.load(folder / f'{rank}.pth', weights_only=True) for rank in range(world_size)]
        found.update(zip(jobs(world_size), zip(*per_rank, strict=True), strict=True))
    return found


def relative_error(actual, expected):
    difference = (actual - expected).norm()
    return 0.0 if difference == 0 else float(difference / expected.norm())


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('name', CASES)
def test_as_one_process(results, name, dtype):
    loss, gradient, rows = compute(name, dtype)
    found = {shares: per_rank for (*case, shares), per_rank in results.items() if case == [name, dtype]}
    assert {len(shares) for shares in found} == {1, 2, 4}
    for shares, per_rank in found.items():
        for own_loss, own_gradient, _ in per_rank:
            assert relative_error(own_loss, loss) <= TOLERANCE[dtype], shares
            assert relative_error(own_gradient, gradient) <= TOLERANCE[dtype], shares
        assert relative_error(torch.cat([own_rows for *_, own_rows in per_rank]), rows) <= TOLERANCE[dtype], shares


def test_every_loss_that_gathers_is_among_the_cases():
    gathering = {name for name in losses.__all__ if 'gather' in inspect.signature(getattr(losses, name)).parameters}
    bases = {'RelationLoss', 'LabelledRelationLoss'}
    assert gathering - bases == {name.split()[0] for name in CASES if name.split()[0] in losses.__all__}
