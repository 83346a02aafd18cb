"""WKD-L (NeurIPS 2024, https://arxiv.org/abs/2412.08139): 200 labelled digits, a small network learns from a large one.

    mmkd train configs/wkd/wkd_convnet-small_100e_digits-200.py --with-teacher

Costs are those of the teacher's classes, one minus the cosine of their centres (class_costs), measured with seed 0.

Cost: seconds of CPU time; not measured.
Result: top-1 83.0 ± 0.5, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

cost = [
    [0.00, 0.77, 0.60, 0.83, 0.70, 0.70, 0.61, 0.78, 0.65, 0.52],
    [0.77, 0.00, 0.66, 0.77, 0.53, 0.91, 0.83, 0.56, 0.82, 0.74],
    [0.60, 0.66, 0.00, 0.49, 0.64, 0.81, 0.55, 0.67, 0.63, 0.74],
    [0.83, 0.77, 0.49, 0.00, 0.87, 0.57, 0.86, 0.46, 0.59, 0.50],
    [0.70, 0.53, 0.64, 0.87, 0.00, 0.80, 0.34, 0.60, 0.81, 0.73],
    [0.70, 0.91, 0.81, 0.57, 0.80, 0.00, 0.55, 0.68, 0.72, 0.49],
    [0.61, 0.83, 0.55, 0.86, 0.34, 0.55, 0.00, 0.92, 0.61, 0.76],
    [0.78, 0.56, 0.67, 0.46, 0.60, 0.68, 0.92, 0.00, 0.65, 0.65],
    [0.65, 0.82, 0.63, 0.59, 0.81, 0.72, 0.61, 0.65, 0.00, 0.79],
    [0.52, 0.74, 0.74, 0.50, 0.73, 0.49, 0.76, 0.65, 0.79, 0.00]]

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        wkd=dict(tap='head.fc', loss=dict(type='mmkd_ext.WKDLoss', cost=cost, loss_weight=10.0, target_weight=0.1))))]
