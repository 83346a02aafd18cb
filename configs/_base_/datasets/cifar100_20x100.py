# A small part of CIFAR-100 for one CPU core: its first 20 classes with 100 training and 100 test images each, 16 x 16.
_base_ = './cifar100.py'

data_preprocessor = dict(num_classes=20)
small = dict(type='Resize', scale=16, interpolation='area')
train_pipeline = [small, dict(type='RandomCrop', crop_size=16, padding=2), *_base_.train_pipeline[1:]]
test_pipeline = [small, *_base_.test_pipeline]
subset = dict(type='mmkd_ext.NovelClassSplit', known=20, subset='labelled')

train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        labelled_fraction=0.2,
        dataset=dict(split='train', pipeline=train_pipeline, **_base_.data),
        **subset))
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True, dataset=dict(split='test', pipeline=test_pipeline, **_base_.data), **subset))
test_dataloader = val_dataloader

val_evaluator = dict(topk=1)
test_evaluator = val_evaluator
