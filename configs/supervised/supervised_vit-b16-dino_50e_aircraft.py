"""Stage one of UNO and Cr-KD, supervised: FGVC-Aircraft, 50 known and 50 novel classes.

    mmkd train configs/supervised/supervised_vit-b16-dino_50e_aircraft.py

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = [
    '../_base_/models/ncd_vit-b16_dino.py',
    '../_base_/datasets/supervised_aircraft.py',
    '../_base_/schedules/vit_supervised.py',
    '../_base_/default_runtime.py']

model = dict(known_head=dict(num_classes=50))
