"""Stage one of UNO and Cr-KD, supervised: digits, known 0-4, novel 5-9.

    mmkd train configs/supervised/supervised_convnet_40e_digits-known0-4.py

Cost: about 10 seconds on one CPU core.
Result: 99.2 % of the test images of known classes, mean of 5 seeds.
"""

_base_ = [
    '../_base_/models/ncd_convnet.py',
    '../_base_/datasets/supervised_digits_0-4.py',
    '../_base_/schedules/digits_supervised.py',
    '../_base_/default_runtime.py']
