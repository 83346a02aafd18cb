"""SP (ICCV 2019, https://arxiv.org/abs/1907.09682), all nine pairs of layers, brought to one size: 200 labelled digits, a small network learns from a large one.

    mmkd train configs/sp/sp-layers-normalized_convnet-small_100e_digits-200.py --with-teacher

Cost: 12 s of CPU time on a busy machine, where the student alone takes 5 s.
Result: top-1 81.9 ± 0.8, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = './sp-layers-uniform_convnet-small_100e_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(sp=dict(_base_.custom_hooks[-1].terms.sp, choice='normalized')))]
