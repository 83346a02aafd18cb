"""Patch relations (PaKa, https://arxiv.org/abs/2509.05606): 200 labelled digits, a small network learns from a large one.

    mmkd train configs/patches/patches-cka_convnet-small_100e_digits-200.py --with-teacher

Cost: seconds of CPU time; not measured.
Result: not run here; student alone 83.0 ± 0.6.
"""

_base_ = './patches_convnet-small_100e_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        patches=dict(tap='backbone.layers.6', loss=dict(type='mmkd_ext.PatchRelationLoss', relation='cka'))))]
