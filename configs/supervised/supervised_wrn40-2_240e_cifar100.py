"""Teacher: CIFAR-100, WRN-40-2.

    mmkd train configs/supervised/supervised_wrn40-2_240e_cifar100.py

Cost: one GPU; not measured.
Result: not run here; RepDistiller reports top-1 75.61.
"""

_base_ = './supervised_wrn16-2_240e_cifar100.py'

model = dict(backbone=dict(depth=40))
