"""Self-distillation by RKD (CVPR 2019, https://arxiv.org/abs/1904.05068) beside triplets: Omniglot, three generations of one network in one run.

    mmkd train configs/metric_learning/metric_learning-generations_convnet-small_3x6e_omniglot.py

Cost: about three minutes of one CPU core.
Result: not measured; run for two iterations a generation by the tests.
"""

_base_ = './metric_learning_convnet-small_6e_omniglot.py'

# In total; the schedule is that of one generation.
train_cfg = dict(max_epochs=18)

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.GenerationHook',
        num_generations=3,
        terms=dict(
            rkd_distance=dict(tap='head.normalized', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=1.0)),
            rkd_angle=dict(tap='head.normalized', loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=2.0))))]
