"""KD (2015, https://arxiv.org/abs/1503.02531): CIFAR-100, WRN-16-2 learns from WRN-40-2.

    mmkd train configs/kd/kd_wrn16-2_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; RepDistiller reports top-1 74.92 for this pair.
"""

_base_ = '../_base_/teachers/wrn40-2-wrn16-2_cifar100.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
