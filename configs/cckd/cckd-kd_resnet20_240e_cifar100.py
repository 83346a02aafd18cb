"""CCKD (ICCV 2019, https://arxiv.org/abs/1904.01802), with KD: CIFAR-100, ResNet-20 learns from ResNet-56.

    mmkd train configs/cckd/cckd-kd_resnet20_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = './cckd_resnet20_240e_cifar100.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        **_base_.custom_hooks[-1].terms,
        kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
