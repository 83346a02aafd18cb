"""Cr-KD (ICCV 2023, https://arxiv.org/abs/2307.09158), stage 2 of 2: digits, known 5-9, novel 0-4.

    mmkd train configs/crkd/crkd_convnet_80e_digits.py --with-teacher

Cost: about a minute on one CPU core, stage one included.
Result: novel accuracy 97.83 +- 0.38 on unlabelled training images, 5 seeds (docs/results/digits.md).
"""

_base_ = '../uno/uno_convnet_80e_digits.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=_base_.stage_one,
        terms=dict(crkd=dict(tap='class_logits', loss=dict(type='mmkd_ext.ClassRelationLoss', loss_weight=0.01))))]
