"""DIST (NeurIPS 2022, https://arxiv.org/abs/2205.10536): 200 labelled digits, a small network learns from a large one.

    mmkd train configs/dist/dist_convnet-small_100e_digits-200.py --with-teacher

Cost: seconds of CPU time; not measured.
Result: top-1 85.6 ± 0.8, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        dist=dict(tap='head.fc', loss=dict(type='mmkd_ext.DISTLoss', beta=2.0, gamma=2.0, temperature=4.0))))]
