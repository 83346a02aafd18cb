"""Self-distillation by RKD (CVPR 2019, https://arxiv.org/abs/1904.05068): Stanford Online Products, generation 3 of ResNet-50 learns from generation 2.

    python tools/train.py configs/metric_learning/metric_learning-generation3_resnet50_120e_sop.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = [
    '../_base_/models/embedding_resnet50.py',
    '../_base_/datasets/retrieval_sop.py',
    '../_base_/schedules/relation_80e.py',
    '../_base_/default_runtime.py']

model = dict(head=dict(normalize=False, loss=None))

param_scheduler = [dict(type='MultiStepLR', milestones=[39, 79], gamma=0.1)]
train_cfg = dict(max_epochs=120)

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/metric_learning-generation2_resnet50_120e_sop.py',
            checkpoint='work_dirs/metric_learning-generation2_resnet50_120e_sop/epoch_120.pth'),
        terms=dict(
            rkd_distance=dict(
                student='head.fc',
                teacher='head.normalized',
                loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=1.0)),
            rkd_angle=dict(
                student='head.fc',
                teacher='head.normalized',
                loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=2.0))))]
