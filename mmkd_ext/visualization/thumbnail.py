"""Small RGB pictures of evaluation images."""

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from mmkd_ext.visualization.discovery import Assignment

__all__ = ['small_picture', 'thumbnail']

_MAX_SIDE = 96
"""Pixels; more than a gallery can show."""


def thumbnail(dataset: Dataset, position: int, assignment: Assignment, *, is_bgr: bool) -> np.ndarray:
    """Read an evaluation image again and make it small.

    Args:
        dataset: The evaluation data; items have ``inputs`` (1 or 3, h, w) in 0..255 and ``data_samples``.
        position: Position of the image in it.
        assignment: What was predicted at this position.
        is_bgr: Whether its channels are in the order blue, green, red.

    Returns:
        np.ndarray: RGB, uint8, (height, width, 3), longer side at most 96 pixels.

    Raises:
        RuntimeError: Another sample is at this position, so the data was evaluated in another order.
    """
    item = dataset[position]
    sample = item['data_samples']
    found = (int(sample.get('sample_idx', -1)), sample.get('split_name'))
    expected = (assignment.sample_idx, assignment.split)
    if found != expected:
        raise RuntimeError(
            f'DiscoveryReportHook: expected sample {expected} at position {position} of the evaluation data but got '
            f'{found}; evaluate with DefaultSampler(shuffle=False)'
        )
    return small_picture(item['inputs'], is_bgr=is_bgr)


def small_picture(image: torch.Tensor, *, is_bgr: bool) -> np.ndarray:
    """Make a picture of an image tensor, small enough for a gallery.

    Args:
        image: Shape (1 or 3, h, w), values 0..255.
        is_bgr: Whether its channels are in the order blue, green, red.

    Returns:
        np.ndarray: RGB, uint8, (height, width, 3), longer side at most 96 pixels.
    """
    image = (image.flip(0) if is_bgr else image).expand(3, -1, -1).float()
    if max(image.shape[1:]) > _MAX_SIDE:
        size = [max(1, round(side * _MAX_SIDE / max(image.shape[1:]))) for side in image.shape[1:]]
        image = F.interpolate(image[None], size=size, mode='bilinear', antialias=True)[0]
    return image.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
