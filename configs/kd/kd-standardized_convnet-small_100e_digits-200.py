"""KD (2015, https://arxiv.org/abs/1503.02531) of standardised logits (CVPR 2024, https://arxiv.org/abs/2403.01427): 200 labelled digits, a small network learns from a large one.

    mmkd train configs/kd/kd-standardized_convnet-small_100e_digits-200.py --with-teacher

Cost: seconds of CPU time; not measured.
Result: not run here; student alone 83.0 ± 0.6.
"""

_base_ = './kd_convnet-small_100e_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.KDLoss', temperature=2.0, standardize=True, loss_weight=9.0))))]
