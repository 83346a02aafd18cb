"""Stage one of UNO and Cr-KD, supervised: CIFAR-100, 50 known and 50 novel classes.

    mmkd train configs/supervised/supervised_resnet18_200e_cifar100-50.py

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = [
    '../_base_/models/ncd_resnet18_cifar.py',
    '../_base_/datasets/supervised_cifar100_50.py',
    '../_base_/schedules/cifar_supervised.py',
    '../_base_/default_runtime.py']
