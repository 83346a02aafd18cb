"""SP (ICCV 2019, https://arxiv.org/abs/1907.09682), at each of the four positions of the map by itself: 200 labelled digits, a small network learns from a large one.

    mmkd train configs/sp/sp-positions_convnet-small_100e_digits-200.py --with-teacher

Cost: 8 s of CPU time on a busy machine, where the student alone takes 5 s.
Result: top-1 84.4 ± 0.6, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        sp=dict(tap='backbone', positions=4, loss=dict(type='mmkd_ext.SPLoss', loss_weight=3000.0))))]
