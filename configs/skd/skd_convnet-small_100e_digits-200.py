"""SKD, its direction term (CVPR 2026): 200 labelled digits, a small network learns from a large one.

    mmkd train configs/skd/skd_convnet-small_100e_digits-200.py --with-teacher

Cost: seconds of CPU time; not measured.
Result: not run here; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        skd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SKDLoss', loss_weight=0.45))))]
