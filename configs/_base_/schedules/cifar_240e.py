# The common CIFAR-100 benchmark of distillation (RepDistiller): 240 epochs, SGD, 0.05 times 0.1 at 150, 180 and 210.
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4))
param_scheduler = [dict(type='MultiStepLR', milestones=[150, 180, 210], gamma=0.1)]
train_cfg = dict(by_epoch=True, max_epochs=240, val_interval=10)
val_cfg = dict()
test_cfg = dict()
