"""The narrow residual networks of the CIFAR benchmarks, ResNet-20 to ResNet-110."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd_ext.models.cifar_stages import HE_NORMAL, CIFARStages
from mmkd_ext.registry import MODELS

__all__ = ['CIFARResNet']


@MODELS.register_module()
class CIFARResNet(CIFARStages):
    """ResNet of depth 6n + 2 for images of 32x32 pixels: three stages of n basic blocks, strides 1, 2 and 2.

    ``ResNet_CIFAR`` of mmpretrain is another network, the wide one of ImageNet with a small stem: its ResNet-18 has 40
    times the parameters of the ResNet-20 here.

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2, with 1x1 convolutions where
    the shape changes, as in the distillation benchmark of Tian et al. (RepDistiller).

    Args:
        depth: 6n + 2: 8, 14, 20, 32, 44, 56, 110.
        in_channels: Channels of the images.
        stem_channels: Width of the first convolution.
        base_channels: Width of the first stage; the others have 2 and 4 times as much. The benchmark's ``resnet8x4`` is
            ``depth=8, stem_channels=32, base_channels=64``, its ``resnet32x4`` the same with ``depth=32``.
        out_indices: Which of the stages 0, 1, 2 to return. No map has negative values.
        init_cfg: Initialisation, as in mmengine; He's normal one by default.

    Raises:
        ValueError: ``depth`` is not 6n + 2, or ``out_indices`` names no stage.

    Example:
        >>> CIFARResNet(20)(torch.zeros(1, 3, 32, 32))[0].shape
        torch.Size([1, 64, 8, 8])
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int = 16,
        base_channels: int = 16,
        out_indices: Sequence[int] = (2,),
        init_cfg: dict | list[dict] | None = HE_NORMAL,
    ) -> None:
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f'CIFARResNet: expected depth 6n + 2 but got {depth}; use 8, 14, 20, 32, 44, 56 or 110')
        stem = nn.Sequential(
            nn.Conv2d(in_channels, stem_channels, 3, padding=1, bias=False), nn.BatchNorm2d(stem_channels), nn.ReLU()
        )
        widths = [stem_channels, base_channels, 2 * base_channels, 4 * base_channels]
        super().__init__(stem, widths, _BasicBlock, (depth - 2) // 6, out_indices, init_cfg)


class _BasicBlock(BaseModule):
    """Two 3x3 convolutions with batch norm, and a way around them."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Identity()
        if stride > 1 or width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.shortcut(features) + self.residual(features))
