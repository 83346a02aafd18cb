# Digits of scikit-learn, known 5-9, novel 0-4. Two views: rotation by 15 degrees, shift by a pixel, scale 0.9 to 1.1.
_base_ = './ncd_protocol.py'

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
    dataset=dict(known=known, dataset=dict(type='mmkd_ext.Digits', pipeline=train_pipeline)))
val_dataloader = dict(
    batch_size=512,
    num_workers=0,
    dataset=dict(
        datasets=[
            dict(split, known=known, dataset=dict(split.dataset, type='mmkd_ext.Digits', pipeline=test_pipeline))
            for split in _base_.val_dataloader.dataset.datasets]))
test_dataloader = val_dataloader

val_evaluator = dict(num_known=len(known))
test_evaluator = val_evaluator
