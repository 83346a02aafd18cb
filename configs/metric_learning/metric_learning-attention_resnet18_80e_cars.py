"""Attention transfer (ICLR 2017, https://arxiv.org/abs/1612.03928) beside triplets: Cars196, ResNet-18 learns from ResNet-50.

    python tools/train.py configs/metric_learning/metric_learning-attention_resnet18_80e_cars.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 72.0, from memory.
"""

_base_ = [
    '../_base_/models/embedding_resnet18.py',
    '../_base_/datasets/retrieval_cars.py',
    '../_base_/schedules/relation_80e.py',
    '../_base_/default_runtime.py']

# 50 on the mean of three layers; the weight is from memory.
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/metric_learning_resnet50_40e_cars.py',
            checkpoint='work_dirs/metric_learning_resnet50_40e_cars/epoch_40.pth'),
        terms=dict(
            attention_2=dict(
                tap='backbone.layer2',
                loss=dict(type='mmkd_ext.AttentionTransferLoss', loss_weight=50 / 3)),
            attention_3=dict(
                tap='backbone.layer3',
                loss=dict(type='mmkd_ext.AttentionTransferLoss', loss_weight=50 / 3)),
            attention_4=dict(
                tap='backbone.layer4',
                loss=dict(type='mmkd_ext.AttentionTransferLoss', loss_weight=50 / 3))))]
