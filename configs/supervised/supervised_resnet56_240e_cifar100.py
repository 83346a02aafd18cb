"""Teacher: CIFAR-100, ResNet-56.

    mmkd train configs/supervised/supervised_resnet56_240e_cifar100.py

Cost: one GPU; not measured.
Result: not run here; RepDistiller reports top-1 72.34.
"""

_base_ = './supervised_resnet20_240e_cifar100.py'

model = dict(backbone=dict(depth=56))
