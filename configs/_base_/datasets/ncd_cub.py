# CUB-200-2011 with the classes of the Semantic Shift Benchmark: 100 known, 100 novel. Two views of 224 x 224.
# The official code of Cr-KD also lists a ColorJitter() there; without arguments it changes nothing, so it is left out.
# data/CUB_200_2011 holds images/, images.txt, image_class_labels.txt and train_test_split.txt.
_base_ = './ncd_protocol.py'

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
    dataset=dict(known=known, dataset=dict(pipeline=train_pipeline, **data)))
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(
        datasets=[
            dict(split, known=known, dataset=dict(split.dataset, pipeline=test_pipeline, **data))
            for split in _base_.val_dataloader.dataset.datasets]))
test_dataloader = val_dataloader

val_evaluator = dict(num_known=100)
test_evaluator = val_evaluator
