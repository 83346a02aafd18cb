"""SP (ICCV 2019, https://arxiv.org/abs/1907.09682): 20 classes of CIFAR-100, a small network learns from a large one.

    mmkd train configs/sp/sp_convnet-small_10e_cifar100-20x100.py --with-teacher

Cost: 6 s of training on one CPU core, after 6 s for the teacher.
Result: top-1 32.2 ± 0.3, five seeds; student alone 30.9 ± 0.3.
"""

_base_ = '../_base_/teachers/convnet_cifar100-20x100.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        sp=dict(tap='backbone', loss=dict(type='mmkd_ext.SPLoss', loss_weight=3000.0))))]
