"""CSKD (ECCV 2020, https://github.com/xeanzheng/CSKD): 200 labelled digits, a small network learns from a large one.

    mmkd train configs/cskd/cskd_convnet-small_100e_digits-200.py --with-teacher

Cost: 4 s of training on one CPU core, after 4 s for the teacher.
Result: top-1 84.5 ± 0.7, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        intra=dict(tap='head.fc', loss=dict(type='mmkd_ext.IntraCategoryLoss', loss_weight=0.01)),
        inter=dict(tap='neck', loss=dict(type='mmkd_ext.InterCategoryLoss', loss_weight=1.0))))]
