# Small networks on little data: 50 epochs of AdamW, one evaluation, at the end.
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.01))
param_scheduler = [dict(type='CosineAnnealingLR', begin=0, end=50, eta_min=0)]
train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=50)
val_cfg = dict()
test_cfg = dict()
