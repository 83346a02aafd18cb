"""Student alone: triplets on CUB-200-2011, ResNet-18, embedding of 128 dimensions; the recipe of RKD (CVPR 2019, https://arxiv.org/abs/1904.05068).

    mmkd train configs/metric_learning/metric_learning_resnet18_40e_cub.py

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 53.9, from memory.
"""

_base_ = [
    '../_base_/models/embedding_resnet18.py',
    '../_base_/datasets/retrieval_cub.py',
    '../_base_/schedules/triplet_40e.py',
    '../_base_/default_runtime.py']
