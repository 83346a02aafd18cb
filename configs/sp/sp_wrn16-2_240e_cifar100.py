"""SP (ICCV 2019, https://arxiv.org/abs/1907.09682): CIFAR-100, WRN-16-2 learns from WRN-40-2.

    mmkd train configs/sp/sp_wrn16-2_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; RepDistiller reports top-1 73.83 for this pair.
"""

_base_ = '../_base_/teachers/wrn40-2-wrn16-2_cifar100.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        sp=dict(tap='backbone', loss=dict(type='mmkd_ext.SPLoss', loss_weight=3000.0))))]
