"""DarkRank (AAAI 2018, https://arxiv.org/abs/1707.01220) beside triplets: Omniglot, a small network learns from a large one.

    mmkd train configs/metric_learning/metric_learning-darkrank_convnet-small_6e_omniglot.py --with-teacher

Cost: about a minute of one CPU core, after the teacher.
Result: Recall@1 57.1 ± 0.9 on new characters, three seeds; student alone 69.7 ± 0.7.
"""

_base_ = '../_base_/teachers/embedding-convnet_omniglot.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        darkrank=dict(tap='head.normalized', loss=dict(type='mmkd_ext.HardDarkRankLoss', loss_weight=1.0))))]
