# miniImageNet, split of Ravi and Larochelle: episodes of 30 ways, 1 shot and 15 queries; tests on 600 fixed episodes.
# data/mini_imagenet holds train.csv, val.csv, test.csv and all images in images/.
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(84, 84)), dict(type='PackInputs')]
data = dict(type='mmkd_ext.MiniImageNet', data_root='data/mini_imagenet', pipeline=pipeline)

train_dataloader = dict(
    batch_size=480,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='train', **data),
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='mmkd_ext.EpisodeBatchSampler', num_ways=30, num_shots=1, num_queries=15, num_episodes=100),
    drop_last=False)
val_dataloader = dict(
    batch_size=200,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='val', **data),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = dict(**{**val_dataloader, 'dataset': dict(split='test', **data)})

val_evaluator = dict(type='mmkd_ext.FewShotMetric', tasks=[(5, 1), (5, 5)], num_episodes=600)
test_evaluator = val_evaluator
