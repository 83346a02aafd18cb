# Distillation in the official code of RKD: 80 epochs of 100 iterations, Adam, 1e-4 times 0.1 after 39 and 59.
# Its flags say 40 and 60, but it steps the schedule when an epoch begins, and counts from 1.
_base_ = './triplet_40e.py'

optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [dict(type='MultiStepLR', milestones=[39, 59], gamma=0.1)]
train_cfg = dict(max_epochs=80)
