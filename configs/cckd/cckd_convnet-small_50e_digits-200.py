"""CCKD (ICCV 2019, https://arxiv.org/abs/1904.01802): 200 labelled digits, a small network learns from a large one.

    python tools/train.py configs/cckd/cckd_convnet-small_50e_digits-200.py --with-teacher

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
        terms=dict(cc=dict(tap='neck', loss=dict(type='mmkd_ext.CCKDLoss', loss_weight=100.0))))]
