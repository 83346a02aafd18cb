"""SP (ICCV 2019, https://arxiv.org/abs/1907.09682), with KD: 20 classes of CIFAR-100, a small network learns from a large one.

    mmkd train configs/sp/sp-kd_convnet-small_10e_cifar100-20x100.py --with-teacher

Cost: 5 s of training on one CPU core, after 6 s for the teacher.
Result: top-1 32.1 ± 0.4, five seeds; student alone 30.9 ± 0.3.
"""

_base_ = './sp_convnet-small_10e_cifar100-20x100.py'

model = dict(head=dict(loss=dict(loss_weight=0.1)))

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        **_base_.custom_hooks[-1].terms,
        kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0, loss_weight=0.9))))]
