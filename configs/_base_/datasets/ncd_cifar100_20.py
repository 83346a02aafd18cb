# CIFAR-100, known classes 0-79, novel 80-99.
_base_ = './ncd_cifar100_50.py'

known = 80

train_dataloader = dict(dataset=dict(known=known))
val_dataloader = dict(
    dataset=dict(datasets=[dict(split, known=known) for split in _base_.val_dataloader.dataset.datasets]))
test_dataloader = val_dataloader

val_evaluator = dict(num_known=known)
test_evaluator = val_evaluator
