# 40 epochs of AdamW.
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4))
param_scheduler = [dict(type='CosineAnnealingLR', begin=0, end=40, eta_min=1e-5)]
train_cfg = dict(by_epoch=True, max_epochs=40, val_interval=20)
val_cfg = dict()
test_cfg = dict()
