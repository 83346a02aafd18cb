"""UNO (ICCV 2021, https://arxiv.org/abs/2108.08536), stage 2 of 2: CIFAR-100, 50 known and 50 novel classes.

    mmkd train configs/uno/uno_resnet18_500e_cifar100-50.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; published novel accuracy 60.4 (UNO in the Cr-KD paper).
"""

_base_ = [
    '../_base_/models/ncd_resnet18_cifar.py',
    '../_base_/datasets/ncd_cifar100_50.py',
    '../_base_/schedules/cifar_discovery.py',
    '../_base_/ncd_runtime.py']

stage_one = dict(
    config='{{ fileDirname }}/../supervised/supervised_resnet18_200e_cifar100-50.py',
    checkpoint='work_dirs/supervised_resnet18_200e_cifar100-50/epoch_200.pth')
load_from = stage_one['checkpoint']

model = dict(
    novel_head=dict(type='mmkd_ext.NovelHead', in_channels=512, num_classes=50))
