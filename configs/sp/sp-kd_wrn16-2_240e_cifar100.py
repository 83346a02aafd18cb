"""SP (ICCV 2019, https://arxiv.org/abs/1907.09682), with KD: CIFAR-100, WRN-16-2 learns from WRN-40-2.

    mmkd train configs/sp/sp-kd_wrn16-2_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = './sp_wrn16-2_240e_cifar100.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        **_base_.custom_hooks[-1].terms,
        kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
