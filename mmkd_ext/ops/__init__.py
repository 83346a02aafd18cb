"""What the maths stands on: checks, precision, distances, products, processes, counters. Torch and NumPy alone."""

from mmkd_ext.ops.arguments import full_precision, sharing
from mmkd_ext.ops.distributed import gather_with_grad, sum_with_grad
from mmkd_ext.ops.geometry import angle_path
from mmkd_ext.ops.maps import pool_map, sample_positions, sample_tokens

__all__ = [
    'angle_path',
    'full_precision',
    'gather_with_grad',
    'pool_map',
    'sample_positions',
    'sample_tokens',
    'sharing',
    'sum_with_grad',
]
