"""Student alone: triplets on Stanford Online Products, ResNet-18, embedding of 64 dimensions; the recipe of RKD (CVPR 2019, https://arxiv.org/abs/1904.05068).

    mmkd train configs/metric_learning/metric_learning_resnet18_40e_sop.py

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = [
    '../_base_/models/embedding_resnet18.py',
    '../_base_/datasets/retrieval_sop.py',
    '../_base_/schedules/triplet_40e.py',
    '../_base_/default_runtime.py']

model = dict(head=dict(embedding_dims=64))

train_dataloader = dict(batch_sampler=dict(num_batches=1000))
