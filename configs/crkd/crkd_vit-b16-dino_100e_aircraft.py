"""Cr-KD (ICCV 2023, https://arxiv.org/abs/2307.09158), stage 2 of 2: FGVC-Aircraft, 50 known and 50 novel classes.

    mmkd train configs/crkd/crkd_vit-b16-dino_100e_aircraft.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; published novel accuracy 55.8.
"""

_base_ = '../uno/uno_vit-b16-dino_100e_aircraft.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=_base_.stage_one,
        terms=dict(crkd=dict(tap='class_logits', loss=dict(type='mmkd_ext.ClassRelationLoss', loss_weight=0.1))))]
