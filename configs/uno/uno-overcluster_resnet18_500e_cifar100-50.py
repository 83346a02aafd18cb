"""UNO (ICCV 2021, https://arxiv.org/abs/2108.08536), v2 with over-clustering heads: CIFAR-100, 50 known and 50 novel classes.

    mmkd train configs/uno/uno-overcluster_resnet18_500e_cifar100-50.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; published novel accuracy 60.8 (README of UNO v2).
"""

_base_ = './uno_resnet18_500e_cifar100-50.py'

model = dict(overcluster_head=dict(type='mmkd_ext.NovelHead', in_channels=512, num_classes=150))
