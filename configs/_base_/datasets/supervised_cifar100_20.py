# Stage one on CIFAR-100: images of the 80 known classes, two large views.
_base_ = './ncd_cifar100_20.py'

test_split = _base_.val_dataloader.dataset.datasets[1]

train_dataloader = dict(
    batch_size=256, dataset=dict(subset='labelled', dataset=dict(pipeline=_base_.supervised_pipeline)))
val_dataloader = dict(dataset=dict(_delete_=True, **dict(test_split, subset='labelled')))
test_dataloader = val_dataloader

val_evaluator = dict(_delete_=True, type='Accuracy')
test_evaluator = val_evaluator
