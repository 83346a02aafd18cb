"""Student alone: 20 classes of CIFAR-100, 100 images of each, 6.7 thousand parameters.

    mmkd train configs/supervised/supervised_convnet-small_10e_cifar100-20x100.py

Cost: 3 s of training on one CPU core.
Result: top-1 30.9 ± 0.3, five seeds.
"""

_base_ = [
    '../_base_/models/convnet_cifar.py',
    '../_base_/datasets/cifar100_20x100.py',
    '../_base_/schedules/convnet_10e.py',
    '../_base_/default_runtime.py']
