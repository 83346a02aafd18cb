"""Teacher: 200 labelled digits, 94 thousand parameters.

    python tools/train.py configs/supervised/supervised_convnet-large_50e_digits-200.py

Cost: one CPU core; not measured.
Result: not run here.
"""

_base_ = './supervised_convnet-small_50e_digits-200.py'

model = dict(backbone=dict(channels=(32, 64, 128)), head=dict(in_channels=128))
