# Few-shot learning on a CPU: 60 epochs of 100 episodes in bfloat16, one evaluation, at the end.
optim_wrapper = dict(type='mmkd_ext.BFloat16OptimWrapper', optimizer=dict(type='Adam', lr=0.002))
param_scheduler = [dict(type='CosineAnnealingLR', begin=0, end=60, eta_min=0)]
train_cfg = dict(by_epoch=True, max_epochs=60, val_interval=60)
val_cfg = dict()
test_cfg = dict()
