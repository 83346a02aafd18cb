"""CCKD (ICCV 2019, https://arxiv.org/abs/1904.01802) with CUR and KD: CIFAR-100, WRN-16-2 learns from WRN-40-2.

    mmkd train configs/cur/cur-cckd-kd_wrn16-2_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here.
"""

_base_ = '../cckd/cckd-kd_wrn16-2_240e_cifar100.py'

# 16 classes with 4 images each: our choice.
train_dataloader = dict(
    batch_sampler=dict(type='mmkd_ext.ClassUniformBatchSampler', samples_per_group=4), drop_last=False)
