"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance alone: Omniglot, a small network learns from a large one.

    python tools/train.py configs/metric_learning/metric_learning-rkd-distance_convnet-small_6e_omniglot.py --with-teacher

Cost: about a minute of one CPU core, after the teacher.
Result: Recall@1 61.9 ± 0.4 on new characters, three seeds; student alone 69.7 ± 0.7.
"""

_base_ = './metric_learning_convnet-small_6e_omniglot.py'

# Relations alone teach; lengths of the student's embeddings are free.
model = dict(head=dict(normalize=False, loss=None))

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/metric_learning_convnet-large_6e_omniglot.py',
            checkpoint='work_dirs/metric_learning_convnet-large_6e_omniglot/epoch_6.pth'),
        terms=dict(
            rkd_distance=dict(
                student='head.fc',
                teacher='head.normalized',
                loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=1.0))))]
