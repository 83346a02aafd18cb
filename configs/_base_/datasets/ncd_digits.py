# Digits of scikit-learn, known 5-9, novel 0-4. Two views: rotation by 15 degrees, shift by a pixel, scale 0.9 to 1.1.
known = [5, 6, 7, 8, 9]

pack = dict(type='PackInputs', meta_keys=('sample_idx', 'split_name'))
view = [
    dict(type='NumpyToPIL'),
    dict(
        type='torchvision/RandomAffine',
        degrees=15,
        translate=(0.125, 0.125),
        scale=(0.9, 1.1),
        interpolation='bilinear')]
train_pipeline = [dict(type='MultiView', num_views=[2], transforms=[view]), pack]
test_pipeline = [pack]

train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    dataset=dict(
        type='mmkd_ext.NovelClassSplit',
        known=known,
        dataset=dict(type='mmkd_ext.Digits', split='train', pipeline=train_pipeline)))
val_dataloader = dict(
    batch_size=512,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='mmkd_ext.NovelClassSplit',
                name='unlabelled_train',
                known=known,
                subset='unlabelled',
                hide_labels=False,
                dataset=dict(type='mmkd_ext.Digits', split='train', pipeline=test_pipeline)),
            dict(
                type='mmkd_ext.NovelClassSplit',
                name='test',
                known=known,
                hide_labels=False,
                dataset=dict(type='mmkd_ext.Digits', split='test', pipeline=test_pipeline))]))
test_dataloader = val_dataloader

val_evaluator = dict(type='mmkd_ext.NovelClassMetric', num_known=len(known))
test_evaluator = val_evaluator
