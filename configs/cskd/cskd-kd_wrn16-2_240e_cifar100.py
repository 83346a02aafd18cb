"""CSKD (ECCV 2020, https://github.com/xeanzheng/CSKD), with KD: CIFAR-100, WRN-16-2 learns from WRN-40-2.

    python tools/train.py configs/cskd/cskd-kd_wrn16-2_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
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
        terms=dict(
            intra=dict(tap='head.fc', loss=dict(type='mmkd_ext.IntraCategoryLoss', loss_weight=0.01)),
            inter=dict(tap='neck', loss=dict(type='mmkd_ext.InterCategoryLoss', loss_weight=1.0)),
            kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
