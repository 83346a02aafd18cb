"""UNO (ICCV 2021, https://arxiv.org/abs/2108.08536) for GCD: ten classes of CIFAR-100, 0-4 known and half labelled.

    mmkd train configs/gcd/gcd-uno_convnet_30e_cifar100-10x500.py --with-teacher

Cost: about two minutes on one CPU core, stage one included, in bfloat16.
Result: all-class accuracy 39.24 +- 0.25 on unlabelled training images, 5 seeds (docs/results/gcd.md).
"""

_base_ = [
    '../_base_/models/ncd_convnet_cifar.py',
    '../_base_/datasets/gcd_cifar100_10x500.py',
    '../_base_/schedules/discovery_30e.py',
    '../_base_/ncd_runtime.py']

stage_one = dict(
    config='{{ fileDirname }}/../supervised/supervised_convnet_100e_cifar100-10x500-gcd.py',
    checkpoint='work_dirs/supervised_convnet_100e_cifar100-10x500-gcd/epoch_100.pth')
load_from = stage_one['checkpoint']

optim_wrapper = dict(type='mmkd_ext.BFloat16OptimWrapper')

model = dict(
    data_preprocessor=dict(batch_augments=_base_.batch_augments),
    assign_to='all',
    sinkhorn=dict(num_iters=20),
    novel_head=dict(type='mmkd_ext.NovelHead', in_channels=128, num_classes=5, hidden_channels=256, embed_channels=64))
