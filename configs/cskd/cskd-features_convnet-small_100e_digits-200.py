"""CSKD (ECCV 2020, https://github.com/xeanzheng/CSKD), both terms on features: 200 labelled digits, a small network learns from a large one.

    mmkd train configs/cskd/cskd-features_convnet-small_100e_digits-200.py --with-teacher

Cost: 8 s of CPU time on a busy machine, where the student alone takes 5 s.
Result: top-1 84.8 ± 1.0, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        intra=dict(tap='neck', loss=dict(type='mmkd_ext.IntraCategoryLoss', loss_weight=0.01)),
        inter=dict(tap='neck', loss=dict(type='mmkd_ext.InterCategoryLoss', loss_weight=1.0))))]
