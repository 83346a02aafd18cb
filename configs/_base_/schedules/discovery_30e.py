# The CIFAR recipe for batches of 256: 30 epochs, SGD from 0.2 to 0.001; one evaluation, at the end.
_base_ = './cifar_discovery.py'

optim_wrapper = dict(optimizer=dict(lr=0.2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.005, begin=0, end=5),
    dict(type='CosineAnnealingLR', eta_min=0.001, begin=5, end=30)]
train_cfg = dict(max_epochs=30, val_interval=30)
