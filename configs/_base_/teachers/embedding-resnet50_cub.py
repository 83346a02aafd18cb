# CUB-200-2011: ResNet-50, trained by triplets, teaches a network of the config that inherits.
# The last hook is the distillation, without terms: a config that inherits says them.
_base_ = [
    '../datasets/retrieval_cub.py',
    '../schedules/relation_80e.py',
    '../default_runtime.py']

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/../../metric_learning/metric_learning_resnet50_40e_cub.py',
            checkpoint='work_dirs/metric_learning_resnet50_40e_cub/epoch_40.pth'))]
