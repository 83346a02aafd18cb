"""DarkRank (AAAI 2018, https://arxiv.org/abs/1707.01220): 20 classes of CIFAR-100, a small network learns from a large one.

    mmkd train configs/darkrank/darkrank_convnet-small_10e_cifar100-20x100.py --with-teacher

Cost: 6 s of training on one CPU core, after 6 s for the teacher.
Result: top-1 31.9 ± 0.7, five seeds; student alone 30.9 ± 0.3.
"""

_base_ = '../_base_/teachers/convnet_cifar100-20x100.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        darkrank=dict(tap='neck', loss=dict(type='mmkd_ext.HardDarkRankLoss', loss_weight=0.1))))]
