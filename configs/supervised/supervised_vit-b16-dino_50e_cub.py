"""Stage one of UNO and Cr-KD, supervised: CUB-200-2011, 100 known and 100 novel classes.

    mmkd train configs/supervised/supervised_vit-b16-dino_50e_cub.py

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = [
    '../_base_/models/ncd_vit-b16_dino.py',
    '../_base_/datasets/supervised_cub.py',
    '../_base_/schedules/vit_supervised.py',
    '../_base_/default_runtime.py']
