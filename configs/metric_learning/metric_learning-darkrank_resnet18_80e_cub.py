"""DarkRank (AAAI 2018, https://arxiv.org/abs/1707.01220) beside triplets: CUB-200-2011, ResNet-18 learns from ResNet-50.

    mmkd train configs/metric_learning/metric_learning-darkrank_resnet18_80e_cub.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 57.2, from memory.
"""

_base_ = ['../_base_/models/embedding_resnet18.py', '../_base_/teachers/embedding-resnet50_cub.py']

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        darkrank=dict(tap='head.normalized', loss=dict(type='mmkd_ext.HardDarkRankLoss', loss_weight=1.0))))]
