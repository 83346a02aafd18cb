"""Augmentation of a whole batch where it is trained on, with random parameters of its own for each image.

The transforms ``mmkd_ext.Batch*`` stand for those of small images in a pipeline of mmpretrain and torchvision over PIL
images: same parameters, same distribution of results. :class:`mmkd_ext.MultiViewDataPreprocessor` runs them. Images
are uint8 throughout. Parameters are drawn on the host, so each operation runs only on the images that it is meant for,
and the host never waits for the device.

Written by hand because torchvision's transforms draw one parameter for a whole batch and kornia's take floats; neither
draws by a counter, so that a resumed run repeats to the bit. For small images: at 224 pixels a pipeline of torchvision,
image by image, takes a third of the time (``docs/libraries.md``).

Shape suffixes: B images, C channels, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkd_ext.registry import MODELS
from mmkd_ext.transforms.draws import BatchDraws


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """Return a copy of an array on a device; on the CPU, a tensor that shares its memory.

    From ordinary memory, a copy to a GPU may wait for all work that is queued there. From pinned memory it is queued
    itself, and torch keeps that memory until the copy is done.

    Args:
        array: Of any shape and numeric dtype.
        device: Where to.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return (tensor.pin_memory() if device.type == 'cuda' else tensor).to(device, non_blocking=True)


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

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Any:
        """Change all images, or make a list of views of them; arguments as in ``__call__``."""
        raise NotImplementedError(f'{type(self).__name__}: expected its own transform(); define it')


# --------------------------------------------------------------------------------------------------
# What runs on which images of a batch: one transform after the other, one of several, several views.

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
