"""DarkRank (AAAI 2018, https://arxiv.org/abs/1707.01220): 200 labelled digits, a small network learns from a large one.

    mmkd train configs/darkrank/darkrank_convnet-small_100e_digits-200.py --with-teacher

Cost: 4 s of training on one CPU core, after 4 s for the teacher.
Result: top-1 84.5 ± 1.0, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        darkrank=dict(tap='neck', loss=dict(type='mmkd_ext.HardDarkRankLoss', loss_weight=0.1))))]
