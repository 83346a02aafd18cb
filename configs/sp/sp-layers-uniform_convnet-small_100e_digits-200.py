"""SP (ICCV 2019, https://arxiv.org/abs/1907.09682), all nine pairs of layers, equal weights: 200 labelled digits, a small network learns from a large one.

    mmkd train configs/sp/sp-layers-uniform_convnet-small_100e_digits-200.py --with-teacher

Cost: 12 s of CPU time on a busy machine, where the student alone takes 5 s.
Result: top-1 84.9 ± 0.2, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        sp=dict(
            pairs=[(f'backbone.layers.{student}', f'backbone.layers.{teacher}') for student in (2, 6, 10) for teacher in (2, 6, 10)],
            choice='uniform',
            loss=dict(type='mmkd_ext.SPLoss', loss_weight=3000.0))))]
