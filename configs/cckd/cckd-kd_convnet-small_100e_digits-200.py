"""CCKD (ICCV 2019, https://arxiv.org/abs/1904.01802), with KD: 200 labelled digits, a small network learns from a large one.

    mmkd train configs/cckd/cckd-kd_convnet-small_100e_digits-200.py --with-teacher

Cost: 4 s of training on one CPU core, after 4 s for the teacher.
Result: top-1 85.0 ± 0.4, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = './cckd_convnet-small_100e_digits-200.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        **_base_.custom_hooks[-1].terms,
        kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
