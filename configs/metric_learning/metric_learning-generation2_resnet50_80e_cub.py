"""Self-distillation by RKD (CVPR 2019, https://arxiv.org/abs/1904.05068): CUB-200-2011, generation 2 of ResNet-50 learns from generation 1.

    mmkd train configs/metric_learning/metric_learning-generation2_resnet50_80e_cub.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 65.1, from memory.
"""

_base_ = './metric_learning-generation1_resnet50_80e_cub.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(
        _base_.custom_hooks[-1],
        teacher=dict(
            config='{{ fileDirname }}/metric_learning-generation1_resnet50_80e_cub.py',
            checkpoint='work_dirs/metric_learning-generation1_resnet50_80e_cub/epoch_80.pth'))]
