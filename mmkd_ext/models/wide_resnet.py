"""Wide residual networks of the CIFAR benchmarks, WRN-16-2 to WRN-40-2 and wider."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd_ext.models.cifar_stages import HE_NORMAL, CIFARStages
from mmkd_ext.registry import MODELS

__all__ = ['WideResNet']


@MODELS.register_module()
class WideResNet(CIFARStages):
    """WRN-d-k for images of 32x32 pixels: three stages of n = (d - 4) / 6 pre-activation blocks, widths 16k, 32k, 64k.

    Source: Zagoruyko & Komodakis, Wide Residual Networks, BMVC 2016, https://arxiv.org/abs/1605.07146, without dropout,
    as in the distillation benchmark of Tian et al. (RepDistiller).

    Args:
        depth: 6n + 4: 10, 16, 22, 28, 40.
        widen_factor: k.
        in_channels: Channels of the images.
        out_indices: Which of the stages 0, 1, 2 to return. The last one includes the batch norm and ReLU that end the
            network; the others are the sums that their last block leaves, with negative values.
        init_cfg: Initialisation, as in mmengine; He's normal one by default.

    Raises:
        ValueError: ``depth`` is not 6n + 4, ``widen_factor`` is below 1, or ``out_indices`` names no stage.

    Example:
        >>> WideResNet(16, 2)(torch.zeros(1, 3, 32, 32))[0].shape
        torch.Size([1, 128, 8, 8])
    """

    def __init__(
        self,
        depth: int,
        widen_factor: int,
        in_channels: int = 3,
        out_indices: Sequence[int] = (2,),
        init_cfg: dict | list[dict] | None = HE_NORMAL,
    ) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f'WideResNet: expected depth 6n + 4 but got {depth}; use 10, 16, 22, 28 or 40')
        if widen_factor < 1:
            raise ValueError(f'WideResNet: expected widen_factor >= 1 but got {widen_factor}; 1 is not widened')
        widths = [16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        stem = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        super().__init__(stem, widths, _PreActivationBlock, (depth - 4) // 6, out_indices, init_cfg)
        self.stages[-1].append(nn.BatchNorm2d(widths[-1])).append(nn.ReLU())


class _PreActivationBlock(BaseModule):
    """Two 3x3 convolutions, each behind batch norm and ReLU, and a way around them."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width_in)
        self.residual = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        self.shortcut = None
        if stride > 1 or width_in != width:
            self.shortcut = nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        activated = torch.relu(self.norm(features))
        # A block that changes the shape leads the activated features around; the others the features as they came.
        kept = features if self.shortcut is None else self.shortcut(activated)
        return kept + self.residual(activated)
