"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance alone: Cars196, ResNet-18 learns from ResNet-50.

    mmkd train configs/metric_learning/metric_learning-rkd-distance_resnet18_80e_cars.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 81.7, from memory.
"""

_base_ = './metric_learning-rkd_resnet18_80e_cars.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(rkd_distance=_base_.custom_hooks[-1].terms.rkd_distance))]
