"""CSKD (ECCV 2020, https://github.com/xeanzheng/CSKD), with KD: 20 classes of CIFAR-100, a small network learns from a large one.

    python tools/train.py configs/cskd/cskd-kd_convnet-small_10e_cifar100-20x100.py --with-teacher

Cost: one CPU core; not measured.
Result: not run here.
"""

_base_ = '../supervised/supervised_convnet-small_10e_cifar100-20x100.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/../supervised/supervised_convnet-large_10e_cifar100-20x100.py',
            checkpoint='work_dirs/supervised_convnet-large_10e_cifar100-20x100/epoch_10.pth'),
        terms=dict(
            intra=dict(tap='head.fc', loss=dict(type='mmkd_ext.IntraCategoryLoss', loss_weight=0.05)),
            inter=dict(tap='neck', loss=dict(type='mmkd_ext.InterCategoryLoss', loss_weight=5.0)),
            kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
