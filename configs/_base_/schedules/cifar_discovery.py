# Stage two of UNO and Cr-KD on CIFAR: 500 epochs of SGD, warm-up of 10 epochs from 0.001 to 0.4, cosine to 0.001.
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.4, momentum=0.9, weight_decay=1.5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.0025, begin=0, end=10),
    dict(type='CosineAnnealingLR', eta_min=0.001, begin=10, end=500)]
train_cfg = dict(by_epoch=True, max_epochs=500, val_interval=10)
val_cfg = dict()
test_cfg = dict()
