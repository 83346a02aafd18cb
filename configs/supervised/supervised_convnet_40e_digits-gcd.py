"""Stage one of UNO and Cr-KD in the generalised setting, supervised: digits, half of the images of the known 5-9.

    mmkd train configs/supervised/supervised_convnet_40e_digits-gcd.py

Cost: about 5 seconds on one CPU core.
Result: 96.5 % of the test images of known classes, mean of 5 seeds.
"""

_base_ = [
    '../_base_/models/ncd_convnet.py',
    '../_base_/datasets/supervised_gcd_digits.py',
    '../_base_/schedules/digits_supervised.py',
    '../_base_/default_runtime.py']
