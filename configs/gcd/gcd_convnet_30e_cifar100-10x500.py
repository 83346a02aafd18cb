"""GCD (CVPR 2022, https://arxiv.org/abs/2201.02609): ten classes of CIFAR-100, 0-4 known and half labelled.

    mmkd train configs/gcd/gcd_convnet_30e_cifar100-10x500.py

Cost: about 70 seconds on one CPU core, in bfloat16.
Result: all-class accuracy 30.96 +- 0.61 on unlabelled training images, 5 seeds (docs/results/gcd.md).
"""

_base_ = [
    '../_base_/models/gcd_convnet_cifar.py',
    '../_base_/datasets/gcd_cifar100_10x500.py',
    '../_base_/schedules/contrast_30e.py',
    '../_base_/default_runtime.py']

optim_wrapper = dict(type='mmkd_ext.BFloat16OptimWrapper')

model = dict(
    data_preprocessor=dict(batch_augments=_base_.batch_augments),
    cluster_head=dict(type='mmkd_ext.ClusterHead', in_channels=128, num_clusters=10))

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmkd_ext.ClusterHook'),
    dict(type='mmkd_ext.DiscoveryReportHook')]
