# The CIFAR recipe in small: 80 epochs, SGD from 0.1 to 0.001.
_base_ = './cifar_discovery.py'

optim_wrapper = dict(optimizer=dict(lr=0.1))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=10),
    dict(type='CosineAnnealingLR', eta_min=0.001, begin=10, end=80)]
train_cfg = dict(max_epochs=80)
