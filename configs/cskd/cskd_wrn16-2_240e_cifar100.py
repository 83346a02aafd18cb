"""CSKD (ECCV 2020, https://github.com/xeanzheng/CSKD): CIFAR-100, WRN-16-2 learns from WRN-40-2.

    mmkd train configs/cskd/cskd_wrn16-2_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = '../_base_/teachers/wrn40-2-wrn16-2_cifar100.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        intra=dict(tap='head.fc', loss=dict(type='mmkd_ext.IntraCategoryLoss', loss_weight=0.01)),
        inter=dict(tap='neck', loss=dict(type='mmkd_ext.InterCategoryLoss', loss_weight=1.0))))]
