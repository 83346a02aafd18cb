# Small networks on Omniglot: 6 epochs of 100 iterations, AdamW from 0.003 to 0, one evaluation, at the end.
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.003, weight_decay=1e-4))
param_scheduler = [
    dict(type='CosineAnnealingLR', begin=0, end=6, eta_min=0, convert_to_iter_based=True)]
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=6)
val_cfg = dict()
test_cfg = dict()
