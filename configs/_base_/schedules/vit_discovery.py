# Stage two of Cr-KD on fine-grained sets: 100 epochs of AdamW, warm-up of 10 epochs to 0.001, cosine to 0.0001.
# The backbone's final norm stays as it is: in the official code only the last block is trained.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1.5e-4),
    paramwise_cfg=dict(custom_keys={'backbone.ln1': dict(lr_mult=0.0, decay_mult=0.0)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=10),
    dict(type='CosineAnnealingLR', eta_min=1e-4, begin=10, end=100)]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=10)
val_cfg = dict()
test_cfg = dict()
