"""Student alone: 200 labelled digits, 1.7 thousand parameters.

    python tools/train.py configs/supervised/supervised_convnet-small_50e_digits-200.py

Cost: one CPU core; not measured.
Result: not run here.
"""

_base_ = [
    '../_base_/models/convnet_digits.py',
    '../_base_/datasets/digits_200.py',
    '../_base_/schedules/convnet_50e.py',
    '../_base_/default_runtime.py']
