"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance alone: a prototypical network learns from its equal, miniImageNet.

    mmkd train configs/prototypical/prototypical-rkd-distance_conv4_200e_mini-imagenet.py --with-teacher

Cost: not measured; as the teacher, and one forward pass of it per step.
Result: not run here; the RKD paper has 49.7 ± 0.8 (5-way 1-shot) and 67.1 ± 0.7 (5-shot), from memory.
"""

_base_ = '../_base_/teachers/prototypical_mini-imagenet.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        rkd_distance=dict(tap='embedding', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=50.0))))]
