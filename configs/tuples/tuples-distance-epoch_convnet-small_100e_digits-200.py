"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance on an eighth of all pairs, others in each epoch: 200 labelled digits, a small network learns from a large one.

    mmkd train configs/tuples/tuples-distance-epoch_convnet-small_100e_digits-200.py --with-teacher

Cost: 8 s of CPU time on a busy machine, where the student alone takes 5 s.
Result: top-1 85.2 ± 0.7, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        rkd_distance=dict(tap='neck', loss=dict(
            type='mmkd_ext.TupleRelationLoss', loss_weight=25.0, potential='distance', order=2, fraction=0.125))))]
