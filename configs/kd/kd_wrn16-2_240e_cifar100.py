"""KD (2015, https://arxiv.org/abs/1503.02531): CIFAR-100, WRN-16-2 learns from WRN-40-2.

    python tools/train.py configs/kd/kd_wrn16-2_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; RepDistiller reports top-1 74.92 for this pair.
"""

_base_ = '../supervised/supervised_wrn16-2_240e_cifar100.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/../supervised/supervised_wrn40-2_240e_cifar100.py',
            checkpoint='work_dirs/supervised_wrn40-2_240e_cifar100/epoch_240.pth'),
        terms=dict(kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
