"""Backbones for small images: a plain one, the residual networks of the CIFAR benchmarks, and a pooling neck."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule, Sequential
from torch import Tensor, nn

from mmkd_ext.registry import MODELS

__all__ = ['HE_NORMAL', 'CIFARResNet', 'CIFARStages', 'ConvNet', 'MaxPooling', 'WideResNet']

HE_NORMAL: list[dict[str, Any]] = [
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', layer='BatchNorm2d', val=1),
]


class CIFARStages(BaseModule):
    """A stem, then three stages of equally many blocks, whose first ones have the strides 1, 2 and 2.

    Args:
        stem: Images to the features that stage 0 gets.
        widths: Channels of the stem and of each stage.
        block: ``block(width_in, width, stride=1)`` makes a block.
        num_blocks: Blocks of a stage.
        out_indices: Which of the stages 0, 1, 2 to return.
        init_cfg: Initialisation, as in mmengine.

    Raises:
        ValueError: ``out_indices`` names no stage.
    """

    def __init__(
        self,
        stem: nn.Module,
        widths: Sequence[int],
        block: type[nn.Module],
        num_blocks: int,
        out_indices: Sequence[int],
        init_cfg: dict | list[dict] | None,
    ) -> None:
        super().__init__(init_cfg)
        if not out_indices or not set(out_indices) <= {0, 1, 2}:
            caller = type(self).__name__
            raise ValueError(f'{caller}: expected out_indices of 0, 1, 2 but got {out_indices}; (2,) is the last')
        self.out_indices = tuple(out_indices)
        self.stem = stem
        self.stages = nn.ModuleList(
            _stage(block, width_in, width, stride, num_blocks)
            for width_in, width, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of the chosen stages.

        Args:
            images: (B, channels, h, w).

        Returns:
            Stage i: (B, widths[1 + i], h / 2 ** i, w / 2 ** i), odd sizes rounded up.
        """
        features, maps = self.stem(images), []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return tuple(maps[index] for index in self.out_indices)


def _stage(block: type[nn.Module], width_in: int, width: int, stride: int, num_blocks: int) -> Sequential:
    others = [block(width, width) for _ in range(num_blocks - 1)]
    return Sequential(block(width_in, width, stride), *others)


# --------------------------------------------------------------------------------------------------
# A backbone for small images.


@MODELS.register_module()
class ConvNet(BaseModule):
    """Stages of [3x3 convolution, batch norm, ReLU] with 2x2 max pooling between them.

    Made for images of 8x8 (digits) to 32x32 pixels on a CPU; a neck such as ``GlobalAveragePooling`` makes vectors of
    its map.

    Args:
        in_channels: Channels of the images.
        channels: Channels of each stage; S stages halve the image S - 1 times.
        init_cfg: Initialisation, as in mmengine; torch's own by default.
    """

    def __init__(self, in_channels: int, channels: Sequence[int] = (16, 32, 64), init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if not channels:
            raise ValueError('ConvNet: expected at least one stage but got channels=(); give the width of each stage')
        layers: list[nn.Module] = []
        for width_in, width in zip((in_channels, *channels), channels, strict=False):
            if layers:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.Conv2d(width_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Compute the last feature map.

        Args:
            images: (B, in_channels, h, w), with h and w at least 2 ** (S - 1).

        Returns:
            One map (B, channels[-1], h // 2 ** (S - 1), w // 2 ** (S - 1)).
        """
        return (self.layers(images),)


# --------------------------------------------------------------------------------------------------
# The narrow residual networks of the CIFAR benchmarks, ResNet-20 to ResNet-110.


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
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.shortcut(features) + self.residual(features))


# --------------------------------------------------------------------------------------------------
# Wide residual networks of the CIFAR benchmarks, WRN-16-2 to WRN-40-2 and wider.


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
        last: Sequential = self.stages[-1]
        last.append(nn.BatchNorm2d(widths[-1])).append(nn.ReLU())


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
        self.shortcut: nn.Module | None = None
        if stride > 1 or width_in != width:
            self.shortcut = nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        activated = torch.relu(self.norm(features))
        # A block that changes the shape leads the activated features around; the others the features as they came.
        kept = features if self.shortcut is None else self.shortcut(activated)
        return kept + self.residual(activated)


# --------------------------------------------------------------------------------------------------
# A neck for backbones whose last map is not yet pooled.


@MODELS.register_module()
class MaxPooling(nn.MaxPool2d):
    """Max pooling as a neck, (B, C, h, w) to (B, C, h // k, w // k); arguments are those of ``torch.nn.MaxPool2d``.

    After :class:`~mmkd_ext.models.ConvNet`, which pools between its stages, ``MaxPooling(kernel_size=2)`` makes the
    four-layer network of few-shot learning, which pools after each: 64 numbers of 28 x 28 pixels, 1600 of 84 x 84.
    """
