"""CSKD (ECCV 2020, https://github.com/xeanzheng/CSKD), with KD: CIFAR-100, ResNet-20 learns from ResNet-56.

    mmkd train configs/cskd/cskd-kd_resnet20_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = './cskd_resnet20_240e_cifar100.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        **_base_.custom_hooks[-1].terms,
        kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
