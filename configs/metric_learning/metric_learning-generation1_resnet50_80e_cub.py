"""Self-distillation by RKD (CVPR 2019, https://arxiv.org/abs/1904.05068): CUB-200-2011, generation 1 of ResNet-50 learns from the one trained by triplets.

    mmkd train configs/metric_learning/metric_learning-generation1_resnet50_80e_cub.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 65.7, from memory.
"""

_base_ = './metric_learning-rkd_resnet18_80e_cub.py'

# The student is as large as its teacher.
model = dict(
    backbone=dict(depth=50, init_cfg=dict(checkpoint='torchvision://resnet50')),
    head=dict(in_channels=2048, embedding_dims=512))
