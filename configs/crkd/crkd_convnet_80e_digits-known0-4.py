"""Cr-KD (ICCV 2023, https://arxiv.org/abs/2307.09158), stage 2 of 2: digits, known 0-4, novel 5-9.

    mmkd train configs/crkd/crkd_convnet_80e_digits-known0-4.py --with-teacher

Cost: about a minute on one CPU core, stage one included.
Result: novel accuracy 98.40 +- 0.46 on unlabelled training images, 5 seeds (docs/results/digits.md).
"""

_base_ = '../uno/uno_convnet_80e_digits-known0-4.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=_base_.stage_one,
        terms=dict(crkd=dict(tap='class_logits', loss=dict(type='mmkd_ext.ClassRelationLoss', loss_weight=0.01))))]
