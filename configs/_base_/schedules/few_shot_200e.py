# Few-shot learning as Prototypical Networks publishes it: Adam, its rate halved every 2000 episodes.
optim_wrapper = dict(optimizer=dict(type='Adam', lr=0.001))
param_scheduler = [dict(type='StepLR', step_size=20, gamma=0.5)]
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=20)
val_cfg = dict()
test_cfg = dict()
