# Training by triplets in the official code of RKD: 40 epochs of 100 iterations, Adam, 1e-5 halved after 24, 29 and 34.
# Its flags say 25, 30 and 35, but it steps the schedule when an epoch begins, and counts from 1.
optim_wrapper = dict(optimizer=dict(type='Adam', lr=1e-5, weight_decay=1e-5))
param_scheduler = [dict(type='MultiStepLR', milestones=[24, 29, 34], gamma=0.5)]
train_cfg = dict(by_epoch=True, max_epochs=40, val_interval=10)
val_cfg = dict()
test_cfg = dict()
