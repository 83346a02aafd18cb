"""UNO (ICCV 2021), stage 2 of 2: CIFAR-100, 50 known and 50 novel classes, views made on the device.

    mmkd train configs/uno/uno_resnet18_500e_cifar100-50_on-device.py --with-teacher

Cost: one GPU; not measured. Views and data set: docs/data_path.md.
Result: not run here; published novel accuracy 60.4 (UNO in the Cr-KD paper).
"""

_base_ = ['./uno_resnet18_500e_cifar100-50.py', '../_base_/datasets/cifar_on_device.py']

split = _base_.train_dataloader.dataset

model = dict(data_preprocessor=dict(batch_augments=_base_.batch_augments))
train_dataloader = dict(
    **_base_.in_memory_loader,
    dataset=dict(
        _delete_=True,
        type='mmkd_ext.InMemoryDataset',
        dataset=dict(split, dataset=dict(split.dataset, pipeline=_base_.test_pipeline))))
