"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), angle alone: CUB-200-2011, ResNet-18 learns from ResNet-50.

    mmkd train configs/metric_learning/metric_learning-rkd-angle_resnet18_80e_cub.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 60.9, from memory.
"""

_base_ = './metric_learning-rkd_resnet18_80e_cub.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(rkd_angle=_base_.custom_hooks[-1].terms.rkd_angle))]
