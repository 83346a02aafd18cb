"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), angle alone: Stanford Online Products, ResNet-18 learns from ResNet-50.

    mmkd train configs/metric_learning/metric_learning-rkd-angle_resnet18_120e_sop.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = './metric_learning-rkd_resnet18_120e_sop.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(rkd_angle=_base_.custom_hooks[-1].terms.rkd_angle))]
