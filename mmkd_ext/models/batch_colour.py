"""Changes of colour and tone of a batch, :class:`~mmkd_ext.models.batch_transform.BatchTransform`.

Shape suffixes: B images, C channels, H x W pixels; 4 changes (brightness, contrast, saturation, hue), in as many turns.
"""

import numpy as np
from torch import Tensor

from mmkd_ext.functional.checks import check_not_negative
from mmkd_ext.functional.colour import adjust_hue, adjust_light
from mmkd_ext.functional.tone import equalize, solarize
from mmkd_ext.functional.upload import upload
from mmkd_ext.models.batch_draws import BatchDraws
from mmkd_ext.models.batch_transform import BatchTransform
from mmkd_ext.registry import MODELS

__all__ = ['BatchColorJitter', 'BatchEqualize', 'BatchSolarize']


@MODELS.register_module()
class BatchColorJitter(BatchTransform):
    """Changes brightness, contrast, saturation and hue of RGB images by random factors, in a random order.

    An amount a draws a factor from [max(0, 1 - a), 1 + a], for hue a shift from [-a, a] turns; 0 leaves the property.

    Args:
        brightness: Amount >= 0.
        contrast: Amount >= 0.
        saturation: Amount >= 0.
        hue: Amount in [0, 0.5].
        prob: Of any change at all.

    Raises:
        ValueError: For an amount out of range.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        check_not_negative('BatchColorJitter', brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
        if hue > 0.5:
            raise ValueError(f'BatchColorJitter: expected hue <= 0.5 but got {hue}; half a turn reaches all hues')
        self.amounts = np.array([brightness, contrast, saturation, hue])

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Change the colours; see the base class."""
        if images_BCHW.shape[1] != 3:
            raise ValueError(
                f'BatchColorJitter: expected 3 channels, red, green and blue, but got {images_BCHW.shape[1]}; leave it '
                'out for grey images'
            )
        low_4 = np.append(np.maximum(0, 1 - self.amounts[:3]), -self.amounts[3])
        high_4 = np.append(1 + self.amounts[:3], self.amounts[3])
        device = images_BCHW.device
        factors_B4 = upload((low_4 + (high_4 - low_4) * draws.uniform(4)).astype(np.float32), device)
        order_B4 = draws.uniform(4).argsort(axis=1)
        turn_of_hue_B1 = order_B4.argmax(axis=1, keepdims=True)
        is_before_B4, is_after_B4 = np.arange(4) < turn_of_hue_B1, np.arange(4) > turn_of_hue_B1
        # The hue takes most of the work, so all images make this turn at once, whatever its number.
        images_BCHW = self._change_light(images_BCHW, factors_B4, order_B4, is_before_B4)
        if self.amounts[3]:
            images_BCHW = adjust_hue(images_BCHW, factors_B4[:, 3])
        return self._change_light(images_BCHW, factors_B4, order_B4, is_after_B4)

    @staticmethod
    def _change_light(images_BCHW: Tensor, factors_B4: Tensor, order_B4: np.ndarray, is_due_B4: np.ndarray) -> Tensor:
        """Make the turns that are due."""
        images_BCHW = images_BCHW.clone()
        for turn in range(4):
            chosen = np.flatnonzero(is_due_B4[:, turn])
            if len(chosen) == 0:
                continue
            rows, kinds = upload(np.stack([chosen, order_B4[chosen, turn]]), images_BCHW.device)
            images_BCHW[rows] = adjust_light(images_BCHW[rows], kinds, factors_B4[rows, kinds])
        return images_BCHW


@MODELS.register_module()
class BatchSolarize(BatchTransform):
    """Inverts what is not below a random grey level, uniform in [0, 256).

    Args:
        prob: Of being applied.
    """

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Solarize; see the base class."""
        return solarize(images_BCHW, upload(256 * draws.uniform(1)[:, 0], images_BCHW.device))


@MODELS.register_module()
class BatchEqualize(BatchTransform):
    """Spreads the histogram of each channel evenly.

    Args:
        prob: Of being applied.
    """

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Equalize; see the base class."""
        return equalize(images_BCHW)
