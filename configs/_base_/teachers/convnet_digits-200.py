# 200 labelled digits: a large network teaches a small one.
# The last hook is the distillation, without terms: a config that inherits says them.
_base_ = '../../supervised/supervised_convnet-small_100e_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/../../supervised/supervised_convnet-large_100e_digits-200.py',
            checkpoint='work_dirs/supervised_convnet-large_100e_digits-200/epoch_100.pth'))]
