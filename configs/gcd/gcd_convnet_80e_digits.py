"""GCD (CVPR 2022, https://arxiv.org/abs/2201.02609): digits, known 5-9 half of them labelled, novel 0-4.

    mmkd train configs/gcd/gcd_convnet_80e_digits.py

Cost: 40 seconds on one CPU core.
Result: all-class accuracy 93.41 +- 0.28 on unlabelled training images, 5 seeds (docs/results/gcd.md).
"""

_base_ = [
    '../_base_/models/gcd_convnet.py',
    '../_base_/datasets/gcd_digits.py',
    '../_base_/schedules/digits_contrast.py',
    '../_base_/default_runtime.py']

train_dataloader = dict(batch_size=256)

model = dict(cluster_head=dict(type='mmkd_ext.ClusterHead', in_channels=64, num_clusters=10))

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmkd_ext.ClusterHook'),
    dict(type='mmkd_ext.DiscoveryReportHook')]
