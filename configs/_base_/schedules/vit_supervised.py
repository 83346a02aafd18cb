# Stage one of Cr-KD on fine-grained sets: 50 epochs of AdamW, warm-up of 5 epochs to 0.001, cosine to 0.0001.
_base_ = './vit_discovery.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=5),
    dict(type='CosineAnnealingLR', eta_min=1e-4, begin=5, end=50)]
train_cfg = dict(max_epochs=50)
