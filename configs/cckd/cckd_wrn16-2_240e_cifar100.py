"""CCKD (ICCV 2019, https://arxiv.org/abs/1904.01802): CIFAR-100, WRN-16-2 learns from WRN-40-2.

    mmkd train configs/cckd/cckd_wrn16-2_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = '../_base_/teachers/wrn40-2-wrn16-2_cifar100.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        cc=dict(tap='neck', loss=dict(type='mmkd_ext.CCKDLoss', loss_weight=100.0))))]
