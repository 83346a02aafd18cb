"""KD (2015, https://arxiv.org/abs/1503.02531): ImageNet, ResNet-18 learns from ResNet-34.

    bash tools/dist_train.sh configs/kd/kd_resnet18_8xb32_in1k.py 8
    mmkd train configs/kd/kd_resnet18_8xb32_in1k.py

The teacher is a download:
https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet34_8xb32_in1k_20210831-f257d4e6.pth

Cost: 8 GPUs; not measured.
Result: not run here; mmpretrain reports top-1 69.90 for this student alone and 73.62 for the teacher.
"""

_base_ = '../_base_/teachers/resnet34-resnet18_in1k.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
