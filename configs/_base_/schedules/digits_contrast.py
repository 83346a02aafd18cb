# 80 epochs of AdamW: warm-up of 10 epochs to 0.003, cosine to 0.
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=10),
    dict(type='CosineAnnealingLR', eta_min=0, begin=10, end=80)]
train_cfg = dict(by_epoch=True, max_epochs=80, val_interval=20)
val_cfg = dict()
test_cfg = dict()
