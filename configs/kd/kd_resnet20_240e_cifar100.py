"""KD (2015, https://arxiv.org/abs/1503.02531): CIFAR-100, ResNet-20 learns from ResNet-56.

    mmkd train configs/kd/kd_resnet20_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; RepDistiller reports top-1 70.66 for this pair.
"""

_base_ = '../_base_/teachers/resnet56-resnet20_cifar100.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
