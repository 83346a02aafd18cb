# ImageNet: ResNet-34, as mmpretrain publishes it, teaches ResNet-18.
# The last hook is the distillation, without terms: a config that inherits says them.
_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'

custom_hooks = [
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='mmpretrain::resnet/resnet34_8xb32_in1k.py',
            checkpoint='checkpoints/resnet34_8xb32_in1k_20210831-f257d4e6.pth'))]
