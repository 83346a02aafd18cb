"""SP (ICCV 2019, https://arxiv.org/abs/1907.09682): 200 labelled digits, a small network learns from a large one.

    python tools/train.py configs/sp/sp_convnet-small_50e_digits-200.py --with-teacher

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
        terms=dict(sp=dict(tap='backbone', loss=dict(type='mmkd_ext.SPLoss', loss_weight=3000.0))))]
