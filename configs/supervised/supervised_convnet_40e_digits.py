"""Stage one of UNO and Cr-KD, supervised: digits, known 5-9, novel 0-4.

    mmkd train configs/supervised/supervised_convnet_40e_digits.py

Cost: about 10 seconds on one CPU core.
Result: 98.4 % of the test images of known classes, mean of 3 seeds.
"""

_base_ = [
    '../_base_/models/ncd_convnet.py',
    '../_base_/datasets/supervised_digits.py',
    '../_base_/schedules/digits_supervised.py',
    '../_base_/default_runtime.py']
