# Digits of scikit-learn with few labels: the first 200 training images, 19 to 22 of each class; all 596 test images.
data_preprocessor = dict(num_classes=10, mean=[77.7], std=[95.8])

train_pipeline = [
    dict(type='NumpyToPIL'),
    dict(
        type='torchvision/RandomAffine',
        degrees=15,
        translate=(0.125, 0.125),
        scale=(0.9, 1.1),
        interpolation='bilinear'),
    dict(type='PackInputs')]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    dataset=dict(type='mmkd_ext.Digits', split='train', indices=200, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=596,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmkd_ext.Digits', split='test', pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy')
test_evaluator = val_evaluator
