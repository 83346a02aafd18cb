# Stage one on ten classes of CIFAR-100 in the generalised setting: half of the images of the known classes 0-4.
_base_ = './gcd_cifar100_10x500.py'

train_dataloader = dict(batch_size=128, dataset=dict(dataset=dict(subset='labelled')))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        **dict(_base_.split, subset='labelled', labelled_fraction=1.0, name='test', dataset=_base_.test_images)))
test_dataloader = val_dataloader

val_evaluator = dict(_delete_=True, type='Accuracy')
test_evaluator = val_evaluator
