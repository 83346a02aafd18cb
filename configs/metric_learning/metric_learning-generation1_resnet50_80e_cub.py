"""Self-distillation by RKD (CVPR 2019, https://arxiv.org/abs/1904.05068): CUB-200-2011, generation 1 of ResNet-50 learns from the one trained by triplets.

    python tools/train.py configs/metric_learning/metric_learning-generation1_resnet50_80e_cub.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 65.7, from memory.
"""

_base_ = ['../_base_/models/embedding_resnet50.py', '../_base_/teachers/embedding-resnet50_cub.py']

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
