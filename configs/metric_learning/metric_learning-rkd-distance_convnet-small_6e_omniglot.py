"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance alone: Omniglot, a small network learns from a large one.

    mmkd train configs/metric_learning/metric_learning-rkd-distance_convnet-small_6e_omniglot.py --with-teacher

Cost: about a minute of one CPU core, after the teacher.
Result: Recall@1 61.9 ± 0.4 on new characters, three seeds; student alone 69.7 ± 0.7.
"""

_base_ = './metric_learning-rkd_convnet-small_6e_omniglot.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(rkd_distance=_base_.custom_hooks[-1].terms.rkd_distance))]
