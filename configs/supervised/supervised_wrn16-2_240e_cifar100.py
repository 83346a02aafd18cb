"""Student alone: CIFAR-100, WRN-16-2.

    mmkd train configs/supervised/supervised_wrn16-2_240e_cifar100.py

Cost: one GPU; not measured.
Result: not run here; RepDistiller reports top-1 73.26.
"""

_base_ = [
    '../_base_/models/wrn16-2_cifar.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_240e.py',
    '../_base_/default_runtime.py']
