"""What all relations together add to a training step: ResNet-18 of CIFAR size, taught by a ResNet-34."""

import torch
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from benchmark_measure import milliseconds
from mmkd_ext.distill import Distillation, FrozenTeacher
from mmkd_ext.hooks.distill_hook import build_term
from mmkd_ext.registry import MODELS

__all__ = ['measure_step']

_NUM_CLASSES = 100
# As in configs/{rkd,sp,cckd,cskd}.
_TERMS = {
    'rkd_distance': dict(tap='neck', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=25.0)),
    'rkd_angle': dict(tap='neck', loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=50.0)),
    'sp': dict(tap='backbone', loss=dict(type='mmkd_ext.SPLoss', loss_weight=3000.0)),
    'cc': dict(tap='neck', loss=dict(type='mmkd_ext.CCKDLoss', loss_weight=100.0)),
    'intra': dict(tap='head.fc', loss=dict(type='mmkd_ext.IntraCategoryLoss', loss_weight=0.01)),
    'inter': dict(tap='neck', loss=dict(type='mmkd_ext.InterCategoryLoss', loss_weight=1.0)),
}


class _Steps:
    """One student that is distilled, one that is not, and their teacher, on one batch of noise."""

    def __init__(self, batch: int, device: torch.device) -> None:
        init_default_scope('mmpretrain')
        torch.manual_seed(0)
        self.inputs = torch.randn(batch, 3, 32, 32, device=device)
        labels = torch.randint(0, _NUM_CLASSES, (batch, 1), device=device)
        self.samples = [_sample(label) for label in labels]
        terms = [build_term(name, spec, ['teacher']) for name, spec in _TERMS.items()]
        taps = dict.fromkeys(tap for term in terms for tap in term.teacher_taps)
        self.teacher = FrozenTeacher(_classifier(34).to(device), taps)
        self.alone, self.distilled = (_classifier(18).to(device).train() for _ in range(2))
        self.distillation = Distillation(self.distilled, {'teacher': self.teacher}, terms)
        self.optimizers = {
            model: torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9) for model in (self.alone, self.distilled)
        }
        self.features = self._features()

    def without(self) -> None:
        """Teacher's forward and student's step."""
        self.teacher.features(self.inputs, self.samples, mode='tensor')
        self._step(self.alone)

    def together(self) -> None:
        """The same step with all terms."""
        self._step(self.distilled)

    def terms(self) -> None:
        """The terms alone, forward and backward to the tapped features."""
        student, teacher = self.features
        student = {tap: x.requires_grad_() for tap, x in student.items()}
        for x in student.values():
            x.grad = None
        sum(term(student, teacher, self.samples) for term in self.distillation.terms).backward()

    def _step(self, model: nn.Module) -> None:
        self.optimizers[model].zero_grad()
        losses = model(self.inputs, self.samples, mode='loss')
        sum(loss for name, loss in losses.items() if 'loss' in name).backward()
        self.optimizers[model].step()

    def _features(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What flows through the taps of both networks."""
        taps = dict.fromkeys(tap for term in self.distillation.terms for tap in term.student_taps)
        student = FrozenTeacher(_classifier(18).to(self.inputs.device), taps)
        return tuple(model.features(self.inputs, self.samples, mode='tensor') for model in (student, self.teacher))


def measure_step(batch: int, seconds: float, device: torch.device) -> dict[str, float]:
    """Time of a step with and without the relations, and of the relations alone.

    The difference of two long times is as uncertain as they are; the terms' own time says more where other programs
    run beside.

    Args:
        batch: Images.
        seconds: Go on for as long, and for at least three rounds.
        device: Where to train.

    Returns:
        Milliseconds, and shares of teacher's forward and student's step in percent.
    """
    steps = _Steps(batch, device)
    without, together, terms = milliseconds([steps.without, steps.together, steps.terms], seconds, device)
    return {
        'batch': batch,
        'teacher and student ms': without,
        'with all relations ms': together,
        'relations ms': terms,
        'share %': 100 * terms / without,
        'difference %': 100 * (together / without - 1),
    }


def _classifier(depth: int) -> nn.Module:
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='ResNet_CIFAR', depth=depth, num_stages=4, out_indices=(3,), style='pytorch'),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead', num_classes=_NUM_CLASSES, in_channels=512, loss=dict(type='CrossEntropyLoss')
            ),
        )
    )


def _sample(label: Tensor) -> BaseDataElement:
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(label)
