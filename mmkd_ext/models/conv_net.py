"""A backbone for small images."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd_ext.registry import MODELS

__all__ = ['ConvNet']


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
