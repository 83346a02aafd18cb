"""Cr-KD (ICCV 2023, https://arxiv.org/abs/2307.09158) for GCD: digits, known 5-9 half of them labelled, novel 0-4.

    mmkd train configs/gcd/gcd-crkd_convnet_80e_digits.py --with-teacher

Cost: about a minute on one CPU core, stage one included.
Result: all-class accuracy 96.44 +- 0.23 on unlabelled training images, 5 seeds (docs/results/gcd.md).
"""

_base_ = './gcd-uno_convnet_80e_digits.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=_base_.stage_one,
        terms=dict(crkd=dict(tap='class_logits', loss=dict(type='mmkd_ext.ClassRelationLoss', loss_weight=0.01))))]
