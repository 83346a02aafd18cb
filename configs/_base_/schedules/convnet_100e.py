# 100 epochs of AdamW; one evaluation and one checkpoint, at the end.
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-2, weight_decay=1e-2))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=100)
val_cfg = dict()
test_cfg = dict()
