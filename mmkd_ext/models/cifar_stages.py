"""What the residual networks of the CIFAR benchmarks have in common: three stages, of which one chooses maps."""

from collections.abc import Sequence

from mmengine.model import BaseModule, Sequential
from torch import Tensor, nn

__all__ = ['HE_NORMAL', 'CIFARStages']

HE_NORMAL = [dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', layer='BatchNorm2d', val=1)]


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
            who = type(self).__name__
            raise ValueError(f'{who}: expected out_indices of 0, 1, 2 but got {out_indices}; (2,) is the last')
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
