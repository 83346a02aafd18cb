"""UNO (ICCV 2021, https://arxiv.org/abs/2108.08536), stage 2 of 2: CUB-200-2011, 100 known and 100 novel classes.

    mmkd train configs/uno/uno_vit-b16-dino_100e_cub.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; published novel accuracy 59.2 (UNO in the Cr-KD paper).
"""

_base_ = [
    '../_base_/models/ncd_vit-b16_dino.py',
    '../_base_/datasets/ncd_cub.py',
    '../_base_/schedules/vit_discovery.py',
    '../_base_/ncd_runtime.py']

stage_one = dict(
    config='{{ fileDirname }}/../supervised/supervised_vit-b16-dino_50e_cub.py',
    checkpoint='work_dirs/supervised_vit-b16-dino_50e_cub/epoch_50.pth')
load_from = stage_one['checkpoint']

model = dict(
    novel_head=dict(type='mmkd_ext.NovelHead', in_channels=768, num_classes=100, num_heads=2))
