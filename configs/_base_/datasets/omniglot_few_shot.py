# Omniglot, Vinyals' split, rotations as classes: episodes of 60 ways, 1 shot and 2 queries; tests on 1000 fixed episodes.
data = dict(type='mmkd_ext.Omniglot', data_root='data/omniglot', rotations=True, pipeline=[dict(type='PackInputs')])

train_dataloader = dict(
    batch_size=180,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='trainval', **data),
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='mmkd_ext.EpisodeBatchSampler', num_ways=60, num_shots=1, num_queries=2, num_episodes=100),
    drop_last=False)
val_dataloader = dict(
    batch_size=200,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='test', **data),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader

val_evaluator = dict(type='mmkd_ext.FewShotMetric', num_episodes=1000)
test_evaluator = val_evaluator
