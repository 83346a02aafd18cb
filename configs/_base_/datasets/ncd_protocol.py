# What novel class discovery trains on and is evaluated on; who inherits says which data set, classes and views.
train_dataloader = dict(
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    dataset=dict(type='mmkd_ext.NovelClassSplit', dataset=dict(split='train')))
val_dataloader = dict(
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='mmkd_ext.NovelClassSplit',
                name='unlabelled_train',
                subset='unlabelled',
                hide_labels=False,
                dataset=dict(split='train')),
            dict(type='mmkd_ext.NovelClassSplit', name='test', hide_labels=False, dataset=dict(split='test'))]))
test_dataloader = val_dataloader

val_evaluator = dict(type='mmkd_ext.NovelClassMetric')
test_evaluator = val_evaluator
