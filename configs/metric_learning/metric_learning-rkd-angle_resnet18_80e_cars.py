"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), angle alone: Cars196, ResNet-18 learns from ResNet-50.

    python tools/train.py configs/metric_learning/metric_learning-rkd-angle_resnet18_80e_cars.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 82.3, from memory.
"""

_base_ = [
    '../_base_/models/embedding_resnet18.py',
    '../_base_/datasets/retrieval_cars.py',
    '../_base_/schedules/relation_80e.py',
    '../_base_/default_runtime.py']

# Relations alone teach; lengths of the student's embeddings are free.
model = dict(head=dict(normalize=False, loss=None))

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/metric_learning_resnet50_40e_cars.py',
            checkpoint='work_dirs/metric_learning_resnet50_40e_cars/epoch_40.pth'),
        terms=dict(
            rkd_angle=dict(
                student='head.fc',
                teacher='head.normalized',
                loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=2.0))))]
