# Stage one of UNO v2 on CIFAR: 200 epochs of SGD, warm-up of 10 epochs to 0.1, cosine to 0.001.
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=10),
    dict(type='CosineAnnealingLR', eta_min=0.001, begin=10, end=200)]
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=10)
val_cfg = dict()
test_cfg = dict()
