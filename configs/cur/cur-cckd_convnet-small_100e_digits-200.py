"""CCKD (ICCV 2019, https://arxiv.org/abs/1904.01802) with CUR: 200 labelled digits, batches of 5 classes with 10 images.

    mmkd train configs/cur/cur-cckd_convnet-small_100e_digits-200.py --with-teacher

Cost: one CPU core, 20 seconds after the teacher.
Result: test accuracy 85.5 ± 1.3 %, five seeds; 83.8 ± 0.4 % with uniform batches.
"""

_base_ = '../cckd/cckd_convnet-small_100e_digits-200.py'

train_dataloader = dict(
    batch_sampler=dict(type='mmkd_ext.ClassUniformBatchSampler', samples_per_group=10), drop_last=False)
