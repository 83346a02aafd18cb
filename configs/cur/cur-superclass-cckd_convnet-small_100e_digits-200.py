"""CCKD (ICCV 2019, https://arxiv.org/abs/1904.01802) with SUR: 200 digits, batches of 5 superclasses with 10 images.

    mmkd train configs/cur/cur-superclass-cckd_convnet-small_100e_digits-200.py --with-teacher

Cost: one CPU core, 20 seconds after the teacher.
Result: test accuracy 84.5 ± 0.3 %, five seeds; 83.8 ± 0.4 % with uniform batches.
"""

_base_ = '../cckd/cckd_convnet-small_100e_digits-200.py'

train_dataloader = dict(
    batch_sampler=dict(type='mmkd_ext.SuperclassUniformBatchSampler', samples_per_group=10), drop_last=False)
custom_hooks = _base_.custom_hooks + [
    dict(
        type='mmkd_ext.SuperclassHook',
        teacher=_base_.custom_hooks[-1].teacher,
        tap='neck',
        num_superclasses=8)]
