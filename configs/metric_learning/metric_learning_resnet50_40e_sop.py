"""Teacher: triplets on Stanford Online Products, ResNet-50, embedding of 512 dimensions; the recipe of RKD (CVPR 2019, https://arxiv.org/abs/1904.05068).

    mmkd train configs/metric_learning/metric_learning_resnet50_40e_sop.py

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 76.6, from memory.
"""

_base_ = [
    '../_base_/models/embedding_resnet50.py',
    '../_base_/datasets/retrieval_sop.py',
    '../_base_/schedules/triplet_40e.py',
    '../_base_/default_runtime.py']

train_dataloader = dict(batch_sampler=dict(num_batches=1000))
