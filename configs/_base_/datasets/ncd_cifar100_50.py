# CIFAR-100, known classes 0-49, novel 50-99. Two large and two small views with the parameters of UNO and Cr-KD.
# data/cifar100 holds train.bin and test.bin, or an unpacked official archive.
_base_ = './ncd_protocol.py'

data = dict(type='mmkd_ext.CIFAR100', data_root='data/cifar100')
known = 50

pack = dict(type='PackInputs', meta_keys=('sample_idx', 'split_name'))
jitter = dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
uniform_threshold = dict(magnitude_range=(0, 256), magnitude_std='inf')
large_view = [
    dict(type='NumpyToPIL'),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='torchvision/RandomCrop', size=32, padding=4)],
            [dict(type='torchvision/RandomResizedCrop', size=32, scale=(0.5, 1.0))]]),
    dict(type='torchvision/RandomHorizontalFlip'),
    dict(type='RandomApply', prob=0.6, transforms=[jitter]),
    dict(type='PILToNumpy'),
    dict(type='Solarize', prob=0.1, **uniform_threshold),
    dict(type='Equalize', prob=0.1)]
small_view = [
    dict(type='NumpyToPIL'),
    dict(type='torchvision/RandomResizedCrop', size=18, scale=(0.3, 0.8)),
    dict(type='torchvision/RandomHorizontalFlip'),
    dict(type='RandomApply', prob=0.8, transforms=[jitter]),
    dict(type='PILToNumpy'),
    dict(type='Solarize', prob=0.2, **uniform_threshold),
    dict(type='Equalize', prob=0.2)]
train_pipeline = [dict(type='MultiView', num_views=[2, 2], transforms=[large_view, small_view]), pack]
supervised_pipeline = [dict(type='MultiView', num_views=[2], transforms=[large_view]), pack]
test_pipeline = [pack]

train_dataloader = dict(
    batch_size=512,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(known=known, dataset=dict(pipeline=train_pipeline, **data)))
val_dataloader = dict(
    batch_size=512,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        datasets=[
            dict(split, known=known, dataset=dict(split.dataset, pipeline=test_pipeline, **data))
            for split in _base_.val_dataloader.dataset.datasets]))
test_dataloader = val_dataloader

val_evaluator = dict(num_known=known)
test_evaluator = val_evaluator
