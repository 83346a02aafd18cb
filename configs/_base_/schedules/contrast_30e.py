# 30 epochs of AdamW: warm-up of 5 epochs to 0.003, cosine to 0; one evaluation, at the end.
_base_ = './digits_contrast.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=5),
    dict(type='CosineAnnealingLR', eta_min=0, begin=5, end=30)]
train_cfg = dict(max_epochs=30, val_interval=30)
