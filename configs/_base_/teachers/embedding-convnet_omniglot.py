# Omniglot: a large network, trained by triplets, teaches a small one.
# The last hook is the distillation, without terms: a config that inherits says them.
_base_ = '../../metric_learning/metric_learning_convnet-small_6e_omniglot.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/../../metric_learning/metric_learning_convnet-large_6e_omniglot.py',
            checkpoint='work_dirs/metric_learning_convnet-large_6e_omniglot/epoch_6.pth'))]
