"""UNO (ICCV 2021, https://arxiv.org/abs/2108.08536), stage 2 of 2: CIFAR-10, 5 known and 5 novel classes.

    mmkd train configs/uno/uno_resnet18_500e_cifar10.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = [
    '../_base_/models/ncd_resnet18_cifar.py',
    '../_base_/datasets/ncd_cifar10.py',
    '../_base_/schedules/cifar_discovery.py',
    '../_base_/ncd_runtime.py']

stage_one = dict(
    config='{{ fileDirname }}/../supervised/supervised_resnet18_200e_cifar10.py',
    checkpoint='work_dirs/supervised_resnet18_200e_cifar10/epoch_200.pth')
load_from = stage_one['checkpoint']

model = dict(
    known_head=dict(num_classes=5),
    novel_head=dict(type='mmkd_ext.NovelHead', in_channels=512, num_classes=5))
