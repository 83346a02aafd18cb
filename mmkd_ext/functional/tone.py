"""Changes of the tone curve of a batch of 8-bit images, to the grey level those of PIL's ``ImageOps``.

Shape suffixes: B images, C channels, H x W pixels; R = B C planes of P = H W pixels, 256 grey levels.
"""

import torch
from torch import Tensor

__all__ = ['equalize', 'solarize']


def solarize(images_BCHW: Tensor, threshold_B: Tensor) -> Tensor:
    """Invert what is not below a threshold.

    Args:
        images_BCHW: (B, C, H, W), uint8.
        threshold_B: (B,), in grey levels, on the same device.

    Returns:
        (B, C, H, W), uint8.
    """
    return torch.where(images_BCHW < threshold_B.view(-1, 1, 1, 1), images_BCHW, 255 - images_BCHW)


def equalize(images_BCHW: Tensor) -> Tensor:
    """Spread the histogram of each image and channel evenly.

    Grey level g becomes ``(step // 2 + number of pixels below g) // step``, where 255 steps make up all pixels but
    the brightest; a plane with fewer pixels than that stays as it is.

    Args:
        images_BCHW: (B, C, H, W), uint8.

    Returns:
        (B, C, H, W), uint8.
    """
    planes_RP = images_BCHW.flatten(0, 1).flatten(1).long()
    histogram_R256 = torch.zeros(len(planes_RP), 256, dtype=torch.long, device=images_BCHW.device)
    histogram_R256.scatter_add_(1, planes_RP, torch.ones_like(planes_RP))
    num_brightest_R1 = histogram_R256.gather(1, planes_RP.amax(dim=1, keepdim=True))
    step_R1 = (planes_RP.shape[1] - num_brightest_R1) // 255
    num_below_R256 = histogram_R256.cumsum(dim=1) - histogram_R256
    curve_R256 = ((step_R1 // 2 + num_below_R256) // step_R1.clamp(min=1)).clamp(max=255)
    equalized_RP = torch.where(step_R1 == 0, planes_RP, curve_R256.gather(1, planes_RP))
    return equalized_RP.to(torch.uint8).view_as(images_BCHW)
