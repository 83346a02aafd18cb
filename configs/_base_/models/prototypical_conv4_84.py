# The same on 84 x 84 pixels: an embedding of 1600 numbers.
_base_ = './prototypical_conv4.py'

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(in_channels=3))
