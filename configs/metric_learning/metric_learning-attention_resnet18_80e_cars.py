"""Attention transfer (ICLR 2017, https://arxiv.org/abs/1612.03928) beside triplets: Cars196, ResNet-18 learns from ResNet-50.

    mmkd train configs/metric_learning/metric_learning-attention_resnet18_80e_cars.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 72.0, from memory.
"""

_base_ = ['../_base_/models/embedding_resnet18.py', '../_base_/teachers/embedding-resnet50_cars.py']

# 50 on the mean of three layers; the weight is from memory.
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms={
        f'attention_{layer}': dict(
            tap=f'backbone.layer{layer}',
            loss=dict(type='mmkd_ext.AttentionTransferLoss', loss_weight=50 / 3))
        for layer in (2, 3, 4)})]
