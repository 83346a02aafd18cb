"""Cr-KD (ICCV 2023, https://arxiv.org/abs/2307.09158) with an estimated number of classes: digits, known 5-9.

    mmkd train configs/gcd/gcd-crkd-auto_convnet_80e_digits-ncd.py --with-teacher

Cost: two minutes on one CPU core: stage one, representation, estimate and discovery.
Result: 5 novel classes estimated (true: 5) and novel accuracy 97.88 +- 0.54, 3 seeds (docs/results/gcd.md).
"""

_base_ = '../crkd/crkd_convnet_80e_digits.py'

num_classes_from = dict(
    config='{{ fileDirname }}/gcd-representation_convnet_80e_digits-ncd.py',
    checkpoint='work_dirs/gcd-representation_convnet_80e_digits-ncd/epoch_80.pth')
model = dict(novel_head=dict(num_classes='auto'))
