"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance and angle: Stanford Online Products, ResNet-18 learns from ResNet-50.

    mmkd train configs/metric_learning/metric_learning-rkd_resnet18_120e_sop.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = ['../_base_/models/embedding_resnet18.py', '../_base_/teachers/embedding-resnet50_sop.py']

# Relations alone teach; lengths of the student's embeddings are free.
model = dict(head=dict(normalize=False, loss=None, embedding_dims=64))

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
