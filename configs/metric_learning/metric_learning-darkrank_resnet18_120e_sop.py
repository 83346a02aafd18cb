"""DarkRank (AAAI 2018, https://arxiv.org/abs/1707.01220) beside triplets: Stanford Online Products, ResNet-18 learns from ResNet-50.

    mmkd train configs/metric_learning/metric_learning-darkrank_resnet18_120e_sop.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = ['../_base_/models/embedding_resnet18.py', '../_base_/teachers/embedding-resnet50_sop.py']

model = dict(head=dict(embedding_dims=64))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        darkrank=dict(tap='head.normalized', loss=dict(type='mmkd_ext.HardDarkRankLoss', loss_weight=1.0))))]
