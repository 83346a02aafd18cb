"""MLKD (CVPR 2023), batch and class level: 200 labelled digits, a small network learns from a large one.

    mmkd train configs/mlkd/mlkd_convnet-small_100e_digits-200.py --with-teacher

Cost: seconds of CPU time; not measured.
Result: not run here; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        mlkd=dict(tap='head.fc', loss=dict(type='mmkd_ext.MLKDLoss', temperature=4.0))))]
