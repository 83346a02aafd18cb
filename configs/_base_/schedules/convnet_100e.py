# Small networks on little data: 100 epochs of AdamW, one evaluation, at the end.
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.01))
param_scheduler = [dict(type='CosineAnnealingLR', begin=0, end=100, eta_min=0)]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=100)
val_cfg = dict()
test_cfg = dict()
