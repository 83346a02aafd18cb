# CIFAR-100: WRN-40-2 teaches WRN-16-2.
# The last hook is the distillation, without terms: a config that inherits says them.
_base_ = '../../supervised/supervised_wrn16-2_240e_cifar100.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/../../supervised/supervised_wrn40-2_240e_cifar100.py',
            checkpoint='work_dirs/supervised_wrn40-2_240e_cifar100/epoch_240.pth'))]
