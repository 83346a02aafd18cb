"""Student alone: 200 labelled digits, 3.6 thousand parameters.

    mmkd train configs/supervised/supervised_convnet-small_100e_digits-200.py

Cost: 3 s of training on one CPU core.
Result: top-1 83.0 ± 0.6, five seeds.
"""

_base_ = [
    '../_base_/models/convnet_digits.py',
    '../_base_/datasets/digits_200.py',
    '../_base_/schedules/convnet_100e.py',
    '../_base_/default_runtime.py']
