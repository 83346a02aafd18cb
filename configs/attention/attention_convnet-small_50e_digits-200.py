"""Attention transfer (ICLR 2017, https://arxiv.org/abs/1612.03928): 200 labelled digits, a small network learns from a large one.

    python tools/train.py configs/attention/attention_convnet-small_50e_digits-200.py --with-teacher

Cost: one CPU core; not measured.
Result: not run here.
"""

_base_ = '../supervised/supervised_convnet-small_50e_digits-200.py'

custom_hooks = [
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/../supervised/supervised_convnet-large_50e_digits-200.py',
            checkpoint='work_dirs/supervised_convnet-large_50e_digits-200/epoch_50.pth'),
        terms=dict(attention=dict(tap='backbone', loss=dict(type='mmkd_ext.AttentionTransferLoss', loss_weight=1000.0))))]
