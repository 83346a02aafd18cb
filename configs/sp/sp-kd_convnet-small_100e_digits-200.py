"""SP (ICCV 2019, https://arxiv.org/abs/1907.09682), with KD: 200 labelled digits, a small network learns from a large one.

    mmkd train configs/sp/sp-kd_convnet-small_100e_digits-200.py --with-teacher

Cost: 4 s of training on one CPU core, after 4 s for the teacher.
Result: top-1 85.8 ± 0.9, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = './sp_convnet-small_100e_digits-200.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        **_base_.custom_hooks[-1].terms,
        kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
