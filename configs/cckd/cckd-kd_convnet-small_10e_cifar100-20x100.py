"""CCKD (ICCV 2019, https://arxiv.org/abs/1904.01802), with KD: 20 classes of CIFAR-100, a small network learns from a large one.

    mmkd train configs/cckd/cckd-kd_convnet-small_10e_cifar100-20x100.py --with-teacher

Cost: 5 s of training on one CPU core, after 6 s for the teacher.
Result: top-1 35.8 ± 0.2, five seeds; student alone 30.9 ± 0.3.
"""

_base_ = './cckd_convnet-small_10e_cifar100-20x100.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        **_base_.custom_hooks[-1].terms,
        kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
