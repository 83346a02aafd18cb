"""What ``benchmark.py`` compares: each function of the package with the published form, on the same inputs.

Published forms are ours, written plainly from the formulas: ``tests/oracles``, where they are checked too.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests' / 'oracles'))

import published_discovery
import published_relations
from mmkd_ext import functional, scores
from mmkd_ext.ops.geometry import angle_path

__all__ = ['DISCOVERY', 'LOSSES', 'build_call', 'path_of', 'published_bytes']

Call = Callable[[], object]


def _class_transport(student: Tensor, teacher: Tensor, cost: Tensor) -> Tensor:
    return functional.class_transport(student, teacher, cost=cost)


# Name: (published, ours). They take student and teacher (B, D), of AT as maps (B, D / 16, 4, 4), of CSKD labels
# and of WKD-L costs too.
LOSSES: dict[str, tuple[Callable, Callable]] = {
    'RKD angle': (published_relations.rkd_angle, functional.rkd_angle),
    'RKD distance': (published_relations.rkd_distance, functional.rkd_distance),
    'SP': (published_relations.similarity_preserving, functional.similarity_preserving),
    'CCKD exact': (published_relations.correlation_exact, functional.correlation_congruence),
    'CCKD Taylor, rows': (
        published_relations.correlation_rows,
        partial(functional.correlation_congruence, order=2),
    ),
    'CCKD Taylor, matrix': (
        published_relations.correlation_matrix,
        partial(functional.correlation_congruence, order=2),
    ),
    'CSKD intra': (published_relations.intra_category, functional.intra_category),
    'CSKD inter': (published_relations.inter_category, functional.inter_category),
    'PKT': (published_relations.probabilistic_transfer, functional.probabilistic_transfer),
    'DarkRank': (published_relations.hard_dark_rank, partial(functional.hard_dark_rank, normalize=False)),
    'AT': (published_relations.attention_transfer, functional.attention_transfer),
    'DIST': (published_relations.prediction_correlation, functional.prediction_correlation),
    'MLKD': (published_relations.batch_class_correlation, functional.batch_class_correlation),
    'SKD': (published_relations.similarity_direction, functional.similarity_direction),
    'WKD-L': (published_relations.class_transport, _class_transport),
    'KD': (published_relations.soft_target, partial(functional.soft_target, temperature=4.0)),
}
_NUM_CATEGORIES = 20
_VIEWS, _HEADS = 2, 4
_RECALL_DIMS = 128
_PATCHES = 196


def build_call(name: str, which: str, device: str, **sizes: int) -> Call:
    """Make the inputs of one comparison, always the same ones, and the call of one side.

    Args:
        name: Key of ``LOSSES`` or ``DISCOVERY``.
        which: ``'published'`` or ``'ours'``.
        device: Device of the inputs.
        **sizes: ``batch`` and ``dims`` of a loss; for others what their function in ``DISCOVERY`` takes.

    Returns:
        A function without arguments: forward and backward of a loss, or one evaluation.
    """
    generator = torch.Generator().manual_seed(0)
    side = ('published', 'ours').index(which)
    if name in DISCOVERY:
        return DISCOVERY[name](side, generator, torch.device(device), **sizes)
    return _loss(name, side, generator, torch.device(device), **sizes)


def path_of(name: str, device: torch.device) -> str:
    """Say which implementation computes the package's side."""
    kernel = angle_path(device) if name == 'RKD angle' else 'torch'
    return {'c': 'C kernel', 'triton': 'Triton kernel'}.get(kernel, 'torch')


def published_bytes(name: str, batch: int, dims: int) -> int:
    """Memory that the published form of a loss takes, by its largest tensors: of B x B x D and B x B x B floats."""
    num_floats = {
        'WKD-L': 6 * batch * dims**2,
        'RKD angle': 6 * batch**2 * dims + 3 * batch**3,
        'CCKD exact': 6 * batch**2 * dims,
    }
    return 4 * num_floats.get(name, 0)


def _forward_backward(loss: Callable[..., Tensor], leaf: Tensor, *inputs: Tensor) -> Call:
    def call() -> None:
        leaf.grad = None
        loss(leaf, *inputs).sum().backward()

    return call


def _loss(name: str, side: int, generator: torch.Generator, device: torch.device, batch: int, dims: int) -> Call:
    student, teacher = (torch.randn(batch, dims, generator=generator).relu().to(device) for _ in range(2))
    if name == 'AT':
        student, teacher = (x.view(batch, -1, 4, 4) for x in (student, teacher))
    inputs = [teacher]
    if name.startswith('CSKD'):
        inputs.append(torch.randint(0, _NUM_CATEGORIES, (batch,), generator=generator).to(device))
    if name == 'WKD-L':
        cost = torch.rand(dims, dims, generator=generator).to(device)
        inputs.append((cost + cost.T) / 2)
    return _forward_backward(LOSSES[name][side], student.requires_grad_(), *inputs)


def _sinkhorn(side: int, generator: torch.Generator, device: torch.device, rows: int, classes: int) -> Call:
    logits = (2 * torch.rand(_VIEWS, _HEADS, rows, classes, generator=generator) - 1).to(device)
    return partial((published_discovery.sinkhorn_each, functional.sinkhorn_knopp)[side], logits)


def _class_relation(side: int, generator: torch.Generator, device: torch.device, rows: int, classes: int) -> Call:
    student = 2 * torch.rand(_VIEWS, _HEADS, rows, 2 * classes, generator=generator) - 1
    teacher = (2 * torch.rand(_VIEWS, 1, rows, classes, generator=generator) - 1).to(device)
    if side == 0:  # The published step repeats the teacher for each head.
        teacher = teacher.expand(-1, _HEADS, -1, -1)
    loss = (published_discovery.class_relation_kd, functional.class_relation_kd)[side]
    return _forward_backward(loss, student.to(device).requires_grad_(), teacher)


def _swapped(side: int, generator: torch.Generator, device: torch.device, rows: int, classes: int) -> Call:
    logits = torch.randn(2 * _VIEWS, _HEADS, rows, classes, generator=generator).to(device)
    targets = torch.randn(logits.shape, generator=generator).softmax(-1).to(device)
    loss = (published_discovery.swapped_prediction, functional.swapped_prediction)[side]
    return _forward_backward(partial(loss, num_large=_VIEWS), logits.requires_grad_(), targets)


def _cluster_scores(side: int, generator: torch.Generator, _: torch.device, rows: int, classes: int) -> Call:
    true, *found = torch.randint(0, classes, (1 + _HEADS, rows), generator=generator).numpy()
    keep = torch.rand(rows, generator=generator).numpy() < 0.7
    heads = [np.where(keep, true, pred) for pred in found]

    def ours(true: np.ndarray, pred: np.ndarray) -> None:
        counted = scores.Contingency(true, pred)
        counted.accuracy(), counted.normalized_mutual_info(), counted.adjusted_rand_index()

    score = (published_discovery.cluster_scores, ours)[side]
    return lambda: [score(true, pred) for pred in heads]


def _recall(side: int, generator: torch.Generator, device: torch.device, rows: int, classes: int) -> Call:
    labels = torch.randint(0, classes, (rows,), generator=generator).to(device)
    embeddings = torch.randn(rows, _RECALL_DIMS, generator=generator).to(device)
    recall = (published_relations.recall_at_k, scores.recall_at_k)[side]
    return partial(recall, embeddings, labels)


def _patches(
    relation: str, side: int, generator: torch.Generator, device: torch.device, rows: int, classes: int
) -> Call:
    student, teacher = (torch.randn(rows, _PATCHES, classes, generator=generator).to(device) for _ in range(2))
    published = {
        'gram': published_relations.patch_gram,
        'softmax': published_relations.patch_softmax,
        'cka': published_relations.patch_cka,
    }[relation]
    loss = (published, partial(functional.patch_relation, relation=relation))[side]
    return _forward_backward(loss, student.requires_grad_(), teacher)


# Name: function that makes the call of a side. The first four on 2 views and 4 heads, patches on images x dims.
DISCOVERY: dict[str, Callable[..., Call]] = {
    'Sinkhorn': _sinkhorn,
    'class-relation KD': _class_relation,
    'swapped prediction': _swapped,
    'accuracy + NMI + ARI': _cluster_scores,
    'Recall@1, 2, 4, 8': _recall,
    'patches, Gram': partial(_patches, 'gram'),
    'patches, softmax': partial(_patches, 'softmax'),
    'patches, CKA': partial(_patches, 'cka'),
}
