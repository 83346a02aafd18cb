# The same on Stanford Online Products: 120 epochs, 1e-4 times 0.1 after 39 and 79; the official flags say 40 and 80.
_base_ = './relation_80e.py'

param_scheduler = [dict(type='MultiStepLR', milestones=[39, 79], gamma=0.1)]
train_cfg = dict(max_epochs=120)
