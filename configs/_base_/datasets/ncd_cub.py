# CUB-200-2011 with the classes of the Semantic Shift Benchmark: 100 known, 100 novel. Two views of 224 x 224.
# The official code of Cr-KD also lists a ColorJitter() there; without arguments it changes nothing, so it is left out.
# data/CUB_200_2011 holds images/, images.txt, image_class_labels.txt and train_test_split.txt.
data = dict(type='CUB', data_root='data/CUB_200_2011')
known = '{{ fileDirname }}/splits/cub_ssb.json'

pack = dict(type='PackInputs', meta_keys=('sample_idx', 'split_name'))
load = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/Resize', size=256, interpolation='bicubic')]
view = [dict(type='torchvision/RandomCrop', size=224), dict(type='torchvision/RandomHorizontalFlip')]
train_pipeline = [*load, dict(type='MultiView', num_views=[2], transforms=[view]), pack]
test_pipeline = [*load, dict(type='torchvision/CenterCrop', size=224), pack]

train_dataloader = dict(
    batch_size=512,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    dataset=dict(
        type='mmkd_ext.NovelClassSplit', known=known, dataset=dict(split='train', pipeline=train_pipeline, **data)))
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
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
                dataset=dict(split='train', pipeline=test_pipeline, **data)),
            dict(
                type='mmkd_ext.NovelClassSplit',
                name='test',
                known=known,
                hide_labels=False,
                dataset=dict(split='test', pipeline=test_pipeline, **data))]))
test_dataloader = val_dataloader

val_evaluator = dict(type='mmkd_ext.NovelClassMetric', num_known=100)
test_evaluator = val_evaluator
