"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance and angle: a prototypical network learns from its equal, miniImageNet.

    python tools/train.py configs/prototypical/prototypical-rkd_conv4_200e_mini-imagenet.py --with-teacher

Cost: not measured; as the teacher, and one forward pass of it per step.
Result: not run here; the RKD paper has 50.0 ± 0.8 (5-way 1-shot) and 68.2 ± 0.7 (5-shot), from memory.
"""

_base_ = './prototypical_conv4_200e_mini-imagenet.py'

# Not the teacher's: the student would begin with the same weights, and meet the same episodes.
randomness = dict(seed=1)

# The paper's rule: 50 for distances and 100 for angles alone; together, both are halved.
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/prototypical_conv4_200e_mini-imagenet.py',
            checkpoint='work_dirs/prototypical_conv4_200e_mini-imagenet/epoch_200.pth'),
        terms=dict(
            rkd_distance=dict(tap='embedding', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=50.0 / 2)),
            rkd_angle=dict(tap='embedding', loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=100.0 / 2))))]
