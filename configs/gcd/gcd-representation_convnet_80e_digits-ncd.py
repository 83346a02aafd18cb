"""GCD's representation alone (CVPR 2022, https://arxiv.org/abs/2201.02609), to estimate the number of classes from.

    mmkd train configs/gcd/gcd-representation_convnet_80e_digits-ncd.py

Digits, all images of the known 5-9 labelled. The estimate: mmkd num-classes with this config and its
checkpoint; gcd-crkd-auto_convnet_80e_digits-ncd.py does both by itself.

Cost: 40 seconds on one CPU core.
Result: Recall@1 98.6 on unlabelled training and test images, mean of 3 seeds.
"""

_base_ = [
    '../_base_/models/gcd_convnet.py',
    '../_base_/datasets/ncd_digits.py',
    '../_base_/schedules/digits_contrast.py',
    '../_base_/default_runtime.py']

train_dataloader = dict(batch_size=256)
val_evaluator = dict(_delete_=True, type='mmkd_ext.RetrievalMetric', topk=(1, ), normalize=True)
test_evaluator = val_evaluator
