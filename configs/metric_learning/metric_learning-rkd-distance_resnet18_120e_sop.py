"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance alone: Stanford Online Products, ResNet-18 learns from ResNet-50.

    python tools/train.py configs/metric_learning/metric_learning-rkd-distance_resnet18_120e_sop.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = [
    '../_base_/models/embedding_resnet18.py',
    '../_base_/datasets/retrieval_sop.py',
    '../_base_/schedules/relation_80e.py',
    '../_base_/default_runtime.py']

# Relations alone teach; lengths of the student's embeddings are free.
model = dict(head=dict(normalize=False, loss=None, embedding_dims=64))

param_scheduler = [dict(type='MultiStepLR', milestones=[39, 79], gamma=0.1)]
train_cfg = dict(max_epochs=120)

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/metric_learning_resnet50_40e_sop.py',
            checkpoint='work_dirs/metric_learning_resnet50_40e_sop/epoch_40.pth'),
        terms=dict(
            rkd_distance=dict(
                student='head.fc',
                teacher='head.normalized',
                loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=1.0))))]
