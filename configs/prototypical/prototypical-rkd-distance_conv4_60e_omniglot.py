"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance alone: a prototypical network learns from its equal, Omniglot.

    mmkd train configs/prototypical/prototypical-rkd-distance_conv4_60e_omniglot.py --with-teacher

Cost: 21 minutes of one CPU core with bfloat16 instructions, after 15 for the teacher.
Result: 5-way 1-shot 98.72 ± 0.16, 5-shot 99.64 ± 0.06; 20-way 1-shot 95.94 ± 0.15, 5-shot 98.91 ± 0.06, one seed.
"""

_base_ = '../_base_/teachers/prototypical_omniglot.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        rkd_distance=dict(tap='embedding', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=50.0))))]
