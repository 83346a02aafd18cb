"""SimGCD (ICCV 2023, https://arxiv.org/abs/2211.11727): ten classes of CIFAR-100, 0-4 known and half labelled.

    mmkd train configs/simgcd/simgcd_convnet_30e_cifar100-10x500.py

Cost: about 70 seconds on one CPU core, in bfloat16.
Result: all-class accuracy 40.87 +- 0.34 on unlabelled training images, 5 seeds (docs/results/gcd.md).
"""

_base_ = [
    '../_base_/models/gcd_convnet_cifar.py',
    '../_base_/datasets/gcd_cifar100_10x500.py',
    '../_base_/schedules/contrast_30e.py',
    '../_base_/default_runtime.py']

optim_wrapper = dict(type='mmkd_ext.BFloat16OptimWrapper')

model = dict(
    type='mmkd_ext.SimGCD',
    data_preprocessor=dict(batch_augments=_base_.batch_augments),
    head=dict(type='mmkd_ext.CosineHead', in_channels=128, num_classes=10),
    contrastive_head=dict(temperature=1.0, supervised_temperature=0.07))

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmkd_ext.TeacherTemperatureHook', num_epochs=5),
    dict(type='mmkd_ext.DiscoveryReportHook')]
