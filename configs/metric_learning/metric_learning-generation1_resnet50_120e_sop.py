"""Self-distillation by RKD (CVPR 2019, https://arxiv.org/abs/1904.05068): Stanford Online Products, generation 1 of ResNet-50 learns from the one trained by triplets.

    mmkd train configs/metric_learning/metric_learning-generation1_resnet50_120e_sop.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 77.6, from memory.
"""

_base_ = './metric_learning-rkd_resnet18_120e_sop.py'

# The student is as large as its teacher.
model = dict(
    backbone=dict(depth=50, init_cfg=dict(checkpoint='torchvision://resnet50')),
    head=dict(in_channels=2048, embedding_dims=512))
