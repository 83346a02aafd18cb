"""CCKD (ICCV 2019, https://arxiv.org/abs/1904.01802): CIFAR-100, ResNet-20 learns from ResNet-56.

    mmkd train configs/cckd/cckd_resnet20_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = '../_base_/teachers/resnet56-resnet20_cifar100.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        cc=dict(tap='neck', loss=dict(type='mmkd_ext.CCKDLoss', loss_weight=100.0))))]
