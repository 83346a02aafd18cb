"""SimGCD (ICCV 2023, https://arxiv.org/abs/2211.11727): digits, known 5-9 half of them labelled, novel 0-4.

    mmkd train configs/simgcd/simgcd_convnet_80e_digits.py

Cost: 40 seconds on one CPU core.
Result: all-class accuracy 94.21 +- 1.71 on unlabelled training images, 5 seeds (docs/results/gcd.md).
"""

_base_ = [
    '../_base_/models/gcd_convnet.py',
    '../_base_/datasets/gcd_digits.py',
    '../_base_/schedules/digits_contrast.py',
    '../_base_/default_runtime.py']

train_dataloader = dict(batch_size=256)

model = dict(
    type='mmkd_ext.SimGCD',
    head=dict(type='mmkd_ext.CosineHead', in_channels=64, num_classes=10),
    contrastive_head=dict(temperature=1.0, supervised_temperature=0.07))

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmkd_ext.TeacherTemperatureHook', num_epochs=12),
    dict(type='mmkd_ext.DiscoveryReportHook')]
