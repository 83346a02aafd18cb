"""PKT (ECCV 2018, https://arxiv.org/abs/1803.10837): 200 labelled digits, a small network learns from a large one.

    mmkd train configs/pkt/pkt_convnet-small_100e_digits-200.py --with-teacher

Cost: seconds of CPU time; not measured.
Result: top-1 85.3 ± 0.7, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        pkt=dict(tap='neck', loss=dict(type='mmkd_ext.PKTLoss', loss_weight=30000.0))))]
