# CIFAR-10, known classes 0-4 (airplane to deer), novel 5-9 (dog to truck); views as for CIFAR-100.
# data/cifar10 holds data_batch_*.bin and test_batch.bin, or an unpacked official archive.
_base_ = './ncd_cifar100_50.py'

data = dict(type='mmkd_ext.CIFAR10', data_root='data/cifar10')
known = 5

train_dataloader = dict(dataset=dict(known=known, dataset=data))
val_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(split, known=known, dataset=dict(split.dataset, **data))
            for split in _base_.val_dataloader.dataset.datasets]))
test_dataloader = val_dataloader

val_evaluator = dict(num_known=known)
test_evaluator = val_evaluator
