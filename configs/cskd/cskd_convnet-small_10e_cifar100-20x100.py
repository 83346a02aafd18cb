"""CSKD (ECCV 2020, https://github.com/xeanzheng/CSKD): 20 classes of CIFAR-100, a small network learns from a large one.

    mmkd train configs/cskd/cskd_convnet-small_10e_cifar100-20x100.py --with-teacher

Cost: 5 s of training on one CPU core, after 6 s for the teacher.
Result: top-1 33.2 ± 0.4, five seeds; student alone 30.9 ± 0.3.
"""

_base_ = '../_base_/teachers/convnet_cifar100-20x100.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        intra=dict(tap='head.fc', loss=dict(type='mmkd_ext.IntraCategoryLoss', loss_weight=0.01)),
        inter=dict(tap='neck', loss=dict(type='mmkd_ext.InterCategoryLoss', loss_weight=1.0))))]
