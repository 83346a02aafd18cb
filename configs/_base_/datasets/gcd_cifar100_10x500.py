# Ten classes of CIFAR-100 at 16 x 16, generalised: known 0-4 (apple to beaver), half of each labelled;
# novel 5-9 (bed to bottle). Two views, made of whole batches (docs/data_path.md).
# SPLIT_SEED in the environment says which half is labelled, here and in stage one.
_base_ = ['./ncd_cifar100_50.py', './cifar_on_device.py']

split = dict(
    type='mmkd_ext.NovelClassSplit',
    known=5,
    novel=[5, 6, 7, 8, 9],
    labelled_fraction=0.5,
    seed={{'$SPLIT_SEED:0'}})
pipeline = [dict(type='Resize', scale=16, interpolation='area'), _base_.pack]
train_images = dict(split='train', pipeline=pipeline, **_base_.data)
test_images = dict(split='test', pipeline=pipeline, **_base_.data)
view = [
    dict(type='mmkd_ext.BatchRandomResizedCrop', size=16, scale=(0.3, 1.0)),
    dict(type='mmkd_ext.BatchRandomFlip'),
    dict(prob=0.8, **_base_.batch_jitter)]
batch_augments = [dict(type='mmkd_ext.BatchMultiView', num_views=[2], transforms=[view])]

train_dataloader = dict(
    batch_size=256,
    dataset=dict(_delete_=True, type='mmkd_ext.InMemoryDataset', dataset=dict(dataset=train_images, **split)),
    **_base_.in_memory_loader)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        datasets=[
            dict(name='unlabelled_train', subset='unlabelled', hide_labels=False, dataset=train_images, **split),
            dict(name='test', hide_labels=False, dataset=test_images, **split)]))
test_dataloader = val_dataloader

val_evaluator = dict(num_known=5)
test_evaluator = val_evaluator
