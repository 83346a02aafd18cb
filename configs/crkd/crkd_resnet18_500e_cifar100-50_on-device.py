"""Cr-KD (ICCV 2023), stage 2 of 2: CIFAR-100, 50 known and 50 novel classes, views made on the device.

    mmkd train configs/crkd/crkd_resnet18_500e_cifar100-50_on-device.py --with-teacher

Cost: one GPU; not measured. Views and data set: docs/data_path.md.
Result: not run here; published novel accuracy 65.3.
"""

_base_ = '../uno/uno_resnet18_500e_cifar100-50_on-device.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=_base_.stage_one,
        terms=dict(crkd=dict(tap='class_logits', loss=dict(type='mmkd_ext.ClassRelationLoss', loss_weight=0.1))))]
