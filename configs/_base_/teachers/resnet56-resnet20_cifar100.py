# CIFAR-100: ResNet-56 teaches ResNet-20.
# The last hook is the distillation, without terms: a config that inherits says them.
_base_ = '../../supervised/supervised_resnet20_240e_cifar100.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/../../supervised/supervised_resnet56_240e_cifar100.py',
            checkpoint='work_dirs/supervised_resnet56_240e_cifar100/epoch_240.pth'))]
