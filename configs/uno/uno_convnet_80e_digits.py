"""UNO (ICCV 2021, https://arxiv.org/abs/2108.08536), stage 2 of 2: digits, known 5-9, novel 0-4.

    mmkd train configs/uno/uno_convnet_80e_digits.py --with-teacher

Cost: about a minute on one CPU core, stage one included.
Result: novel accuracy 98.32 +- 0.17 on unlabelled training images, 5 seeds (docs/results/digits.md).
"""

_base_ = [
    '../_base_/models/ncd_convnet.py',
    '../_base_/datasets/ncd_digits.py',
    '../_base_/schedules/digits_discovery.py',
    '../_base_/ncd_runtime.py']

stage_one = dict(
    config='{{ fileDirname }}/../supervised/supervised_convnet_40e_digits.py',
    checkpoint='work_dirs/supervised_convnet_40e_digits/epoch_40.pth')
load_from = stage_one['checkpoint']

model = dict(
    novel_head=dict(type='mmkd_ext.NovelHead', in_channels=64, num_classes=5, hidden_channels=256, embed_channels=64))
