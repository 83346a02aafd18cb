"""Self-distillation by RKD (CVPR 2019, https://arxiv.org/abs/1904.05068): Cars196, generation 2 of ResNet-50 learns from generation 1.

    mmkd train configs/metric_learning/metric_learning-generation2_resnet50_80e_cars.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; the RKD paper has Recall@1 85.6, from memory.
"""

_base_ = './metric_learning-generation1_resnet50_80e_cars.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(
        _base_.custom_hooks[-1],
        teacher=dict(
            config='{{ fileDirname }}/metric_learning-generation1_resnet50_80e_cars.py',
            checkpoint='work_dirs/metric_learning-generation1_resnet50_80e_cars/epoch_80.pth'))]
