"""Cr-KD (ICCV 2023, https://arxiv.org/abs/2307.09158) for GCD: ten classes of CIFAR-100, 0-4 known and half labelled.

    mmkd train configs/gcd/gcd-crkd_convnet_30e_cifar100-10x500.py --with-teacher

Cost: about two minutes on one CPU core, stage one included, in bfloat16.
Result: all-class accuracy 39.96 +- 0.55 on unlabelled training images, 5 seeds (docs/results/gcd.md).
"""

_base_ = './gcd-uno_convnet_30e_cifar100-10x500.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=_base_.stage_one,
        terms=dict(crkd=dict(tap='class_logits', loss=dict(type='mmkd_ext.ClassRelationLoss', loss_weight=0.1))))]
