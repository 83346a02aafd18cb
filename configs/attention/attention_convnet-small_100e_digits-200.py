"""Attention transfer (ICLR 2017, https://arxiv.org/abs/1612.03928): 200 labelled digits, a small network learns from a large one.

    mmkd train configs/attention/attention_convnet-small_100e_digits-200.py --with-teacher

Cost: 4 s of training on one CPU core, after 4 s for the teacher.
Result: top-1 85.0 ± 0.8, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        attention=dict(tap='backbone', loss=dict(type='mmkd_ext.AttentionTransferLoss', loss_weight=1.0))))]
