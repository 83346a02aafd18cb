"""Stage one of UNO and Cr-KD, supervised: CIFAR-100, 80 known and 20 novel classes, views made on the device.

    mmkd train configs/supervised/supervised_resnet18_200e_cifar100-20_on-device.py

Cost: one GPU; not measured. Views and data set: docs/data_path.md.
Result: not run here.
"""

_base_ = ['./supervised_resnet18_200e_cifar100-20.py', '../_base_/datasets/cifar_on_device.py']

split = _base_.train_dataloader.dataset

model = dict(data_preprocessor=dict(batch_augments=_base_.supervised_batch_augments))
train_dataloader = dict(
    **_base_.in_memory_loader,
    dataset=dict(
        _delete_=True,
        type='mmkd_ext.InMemoryDataset',
        dataset=dict(split, dataset=dict(split.dataset, pipeline=_base_.test_pipeline))))
