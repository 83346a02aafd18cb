"""Cr-KD (ICCV 2023, https://arxiv.org/abs/2307.09158), stage 2 of 2: CIFAR-100, 80 known and 20 novel classes.

    mmkd train configs/crkd/crkd_resnet18_500e_cifar100-20.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; published novel accuracy 91.2.
"""

_base_ = '../uno/uno_resnet18_500e_cifar100-20.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=_base_.stage_one,
        terms=dict(crkd=dict(tap='class_logits', loss=dict(type='mmkd_ext.ClassRelationLoss', loss_weight=0.1))))]
