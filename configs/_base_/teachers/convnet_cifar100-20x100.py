# 20 classes of CIFAR-100: a large network teaches a small one.
# The last hook is the distillation, without terms: a config that inherits says them.
_base_ = '../../supervised/supervised_convnet-small_10e_cifar100-20x100.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/../../supervised/supervised_convnet-large_10e_cifar100-20x100.py',
            checkpoint='work_dirs/supervised_convnet-large_10e_cifar100-20x100/epoch_10.pth'))]
