"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance and angle: a prototypical network learns from its equal, Omniglot.

    mmkd train configs/prototypical/prototypical-rkd_conv4_60e_omniglot.py --with-teacher

Cost: 21 minutes of one CPU core with bfloat16 instructions, after 15 for the teacher.
Result: 5-way 1-shot 98.75 ± 0.16, 5-shot 99.67 ± 0.06; 20-way 1-shot 96.02 ± 0.15, 5-shot 98.95 ± 0.06, one seed.
"""

_base_ = '../_base_/teachers/prototypical_omniglot.py'

# The paper's rule: 50 for distances and 100 for angles alone; together, both are halved.
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        rkd_distance=dict(tap='embedding', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=50.0 / 2)),
        rkd_angle=dict(tap='embedding', loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=100.0 / 2))))]
