"""What runs on which images of a batch: one transform after the other, one of several, several views.

Shape suffixes: B images, C channels, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkd_ext.functional.upload import upload
from mmkd_ext.models.batch_draws import BatchDraws
from mmkd_ext.models.batch_transform import BatchTransform
from mmkd_ext.registry import MODELS

__all__ = ['BatchCompose', 'BatchMultiView', 'BatchRandomChoice']

Step = Mapping[str, Any] | BatchTransform


class BatchCompose(BatchTransform):
    """One transform after the other; the last one may be :class:`BatchMultiView`.

    Args:
        transforms: Transforms or their configs; or one of these alone.
    """

    def __init__(self, transforms: Step | Sequence[Step]) -> None:
        super().__init__()
        transforms = transforms if isinstance(transforms, Sequence) else [transforms]
        self.transforms = [MODELS.build(step) if isinstance(step, Mapping) else step for step in transforms]

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor | list[Tensor]:
        """Run all; see the base class."""
        for transform in self.transforms:
            images_BCHW = transform(images_BCHW, draws)
        return images_BCHW


@MODELS.register_module()
class BatchRandomChoice(BatchTransform):
    """Runs one of several pipelines on each image, each as likely as the others.

    Args:
        transforms: Pipelines, each a transform or a list of them; they yield images of one size.
    """

    def __init__(self, transforms: Sequence[Step | Sequence[Step]]) -> None:
        super().__init__()
        if len(transforms) == 0:
            raise ValueError('BatchRandomChoice: expected transforms to choose from but got none; give two or more')
        self.transforms = [BatchCompose(pipeline) for pipeline in transforms]

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Run the chosen pipelines; see the base class."""
        choice_B = np.floor(draws.uniform(1)[:, 0] * len(self.transforms))
        chosen = [np.flatnonzero(choice_B == number) for number in range(len(self.transforms))]
        order_B = np.concatenate(chosen)
        rows = upload(order_B, images_BCHW.device).split([len(part) for part in chosen])
        parts = [
            pipeline(images_BCHW[part_rows], draws.select(part))
            for pipeline, part_rows, part in zip(self.transforms, rows, chosen, strict=True)
        ]
        return torch.cat(parts)[upload(order_B.argsort(), images_BCHW.device)]


@MODELS.register_module()
class BatchMultiView(BatchTransform):
    """Makes several views of each image, as mmpretrain's ``MultiView`` does of one image.

    Args:
        num_views: Number of views of each pipeline.
        transforms: Pipelines, each a transform or a list of them.

    Raises:
        ValueError: If the numbers of both differ, or a number of views is below 1.
    """

    def __init__(self, num_views: Sequence[int], transforms: Sequence[Step | Sequence[Step]]) -> None:
        super().__init__()
        if len(num_views) != len(transforms) or min(num_views, default=0) < 1:
            raise ValueError(
                f'BatchMultiView: expected a number of views >= 1 for each of the {len(transforms)} pipelines but got '
                f'{num_views}; write num_views=[2, 2], transforms=[large_view, small_view]'
            )
        self.num_views = tuple(num_views)
        self.transforms = [BatchCompose(pipeline) for pipeline in transforms]

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> list[Tensor]:
        """Return the views, (B, C, h, w) each; those of one pipeline are made in one go."""
        views: list[Tensor] = []
        for num, pipeline in zip(self.num_views, self.transforms, strict=True):
            images = pipeline(images_BCHW.repeat(num, 1, 1, 1), draws.views(len(views), num))
            views.extend(images.chunk(num))
        return views
