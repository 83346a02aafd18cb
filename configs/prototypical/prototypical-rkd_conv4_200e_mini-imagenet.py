"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance and angle: a prototypical network learns from its equal, miniImageNet.

    mmkd train configs/prototypical/prototypical-rkd_conv4_200e_mini-imagenet.py --with-teacher

Cost: not measured; as the teacher, and one forward pass of it per step.
Result: not run here; the RKD paper has 50.0 ± 0.8 (5-way 1-shot) and 68.2 ± 0.7 (5-shot), from memory.
"""

_base_ = '../_base_/teachers/prototypical_mini-imagenet.py'

# The paper's rule: 50 for distances and 100 for angles alone; together, both are halved.
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        rkd_distance=dict(tap='embedding', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=50.0 / 2)),
        rkd_angle=dict(tap='embedding', loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=100.0 / 2))))]
