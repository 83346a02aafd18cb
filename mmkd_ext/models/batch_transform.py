"""Augmentation of a whole batch where it is trained on, with random parameters of its own for each image.

The transforms ``mmkd_ext.Batch*`` stand for those of small images in a pipeline of mmpretrain and torchvision over PIL
images: same parameters, same distribution of results. :class:`mmkd_ext.MultiViewDataPreprocessor` runs them. Images
are uint8 throughout. Parameters are drawn on the host, so each operation runs only on the images that it is meant for,
and the host never waits for the device.

Shape suffixes: B images, C channels, H x W pixels.
"""

import numpy as np
from torch import Tensor

from mmkd_ext.functional.upload import upload
from mmkd_ext.models.batch_draws import BatchDraws

__all__ = ['BatchTransform']


class BatchTransform:
    """Base: applies :meth:`transform` to each image with a probability.

    Args:
        prob: Of being applied, in [0, 1].

    Raises:
        ValueError: For another probability.
    """

    def __init__(self, prob: float = 1.0) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'{type(self).__name__}: expected prob in [0, 1] but got {prob}; 0.5 is every other image')
        self.prob = prob

    def __call__(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Return the batch, changed; the one given stays as it is.

        Args:
            images_BCHW: (B, C, H, W), uint8, B >= 0.
            draws: Of the B images.
        """
        if self.prob == 1:
            return self.transform(images_BCHW, draws)
        chosen = np.flatnonzero(draws.uniform(1)[:, 0] < self.prob)
        rows = upload(chosen, images_BCHW.device)
        return images_BCHW.index_copy(0, rows, self.transform(images_BCHW[rows], draws.select(chosen)))

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Change all images; arguments as in :meth:`__call__`."""
        raise NotImplementedError(f'{type(self).__name__}: expected its own transform(); define it')
