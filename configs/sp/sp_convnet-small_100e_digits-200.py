"""SP (ICCV 2019, https://arxiv.org/abs/1907.09682): 200 labelled digits, a small network learns from a large one.

    mmkd train configs/sp/sp_convnet-small_100e_digits-200.py --with-teacher

Cost: 4 s of training on one CPU core, after 4 s for the teacher.
Result: top-1 84.7 ± 1.4, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        sp=dict(tap='backbone', loss=dict(type='mmkd_ext.SPLoss', loss_weight=3000.0))))]
