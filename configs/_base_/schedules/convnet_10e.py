# The same in 10 epochs.
_base_ = './convnet_100e.py'

param_scheduler = [dict(type='CosineAnnealingLR', begin=0, end=10, eta_min=0)]
train_cfg = dict(max_epochs=10, val_interval=10)
