"""Student alone: CIFAR-100, ResNet-20.

    mmkd train configs/supervised/supervised_resnet20_240e_cifar100.py

Cost: one GPU; not measured.
Result: not run here; RepDistiller reports top-1 69.06.
"""

_base_ = [
    '../_base_/models/resnet20_cifar.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_240e.py',
    '../_base_/default_runtime.py']
