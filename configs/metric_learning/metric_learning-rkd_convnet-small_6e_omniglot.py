"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance and angle: Omniglot, a small network learns from a large one.

    mmkd train configs/metric_learning/metric_learning-rkd_convnet-small_6e_omniglot.py --with-teacher

Cost: about a minute of one CPU core, after the teacher.
Result: Recall@1 63.9 ± 1.1 on new characters, three seeds; student alone 69.7 ± 0.7.
"""

_base_ = '../_base_/teachers/embedding-convnet_omniglot.py'

# Relations alone teach; lengths of the student's embeddings are free.
model = dict(head=dict(normalize=False, loss=None))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        rkd_distance=dict(
            student='head.fc',
            teacher='head.normalized',
            loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=1.0)),
        rkd_angle=dict(
            student='head.fc',
            teacher='head.normalized',
            loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=2.0))))]
