"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance and angle, with KD: 200 labelled digits, a small network learns from a large one.

    mmkd train configs/rkd/rkd-kd_convnet-small_100e_digits-200.py --with-teacher

Cost: 5 s of training on one CPU core, after 4 s for the teacher.
Result: top-1 86.4 ± 0.6, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = './rkd_convnet-small_100e_digits-200.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        **_base_.custom_hooks[-1].terms,
        kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
