"""Attention transfer (ICLR 2017, https://arxiv.org/abs/1612.03928): 20 classes of CIFAR-100, a small network learns from a large one.

    mmkd train configs/attention/attention_convnet-small_10e_cifar100-20x100.py --with-teacher

Cost: 5 s of training on one CPU core, after 6 s for the teacher.
Result: top-1 31.7 ± 0.4, five seeds; student alone 30.9 ± 0.3.
"""

_base_ = '../_base_/teachers/convnet_cifar100-20x100.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        attention=dict(tap='backbone', loss=dict(type='mmkd_ext.AttentionTransferLoss', loss_weight=1.0))))]
