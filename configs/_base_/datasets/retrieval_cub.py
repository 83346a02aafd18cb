# CUB-200-2011 for retrieval: trains on the first 100 species, searches all images of the other 100.
# Images are squeezed to 256 x 256; batches of 128 with up to 5 images of a species, as in the official code of RKD.
# data/CUB_200_2011 holds images/, images.txt and image_class_labels.txt.
data = dict(type='mmkd_ext.CUB200', data_root='data/CUB_200_2011')
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=False)

load = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/Resize', size=(256, 256), interpolation='bilinear')]
train_pipeline = [
    *load,
    dict(type='torchvision/RandomCrop', size=224),
    dict(type='torchvision/RandomHorizontalFlip'),
    dict(type='PackInputs')]
test_pipeline = [*load, dict(type='torchvision/CenterCrop', size=224), dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='mmkd_ext.MPerClassBatchSampler', samples_per_class=5, num_batches=100),
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='train', pipeline=train_pipeline, **data))
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='test', pipeline=test_pipeline, **data))
test_dataloader = val_dataloader

val_evaluator = dict(type='mmkd_ext.RetrievalMetric', topk=(1, 2, 4, 8))
test_evaluator = val_evaluator
