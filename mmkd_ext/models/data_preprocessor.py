"""Normalisation of single and multi-view batches, and their augmentation on the device.

Shape legend: V views, B batch rows, c channels, h and w pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mmkd_ext.registry import MODELS
from mmkd_ext.transforms.batch import BatchCompose
from mmkd_ext.transforms.draws import sample_draws

__all__ = ['MultiViewDataPreprocessor']


def _is_tensors(value: object, dim: int) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    return is_list and all(isinstance(item, Tensor) and item.dim() == dim for item in value)


def _stack(images: Sequence[Tensor]) -> Tensor:
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        raise ValueError(
            f'MultiViewDataPreprocessor: expected images of one shape in a view but got {shapes}; '
            'crop or resize them in the pipeline'
        )
    return torch.stack(tuple(images))


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f'a tensor of shape {tuple(value.shape)}'
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0:
        return f'a {type(value).__name__} of {_describe(value[0])}'
    return f'a {type(value).__name__}'


def _batched(inputs: object) -> Tensor | list[Tensor]:
    """Turn any layout of the two collate functions of mmengine into (B, c, h, w) tensors, one per view."""
    if isinstance(inputs, Tensor) and inputs.dim() == 4:
        return inputs
    if _is_tensors(inputs, dim=4):
        return list(inputs)
    if _is_tensors(inputs, dim=3):
        return _stack(inputs)
    if isinstance(inputs, Sequence) and len(inputs) > 0 and all(_is_tensors(view, dim=3) for view in inputs):
        return [_stack(view) for view in inputs]
    raise TypeError(
        f"MultiViewDataPreprocessor: expected 'inputs' to be images (B, c, h, w), a list of V such views, B images "
        f'(c, h, w), or V lists of B images, but got {_describe(inputs)}; end the pipeline with PackInputs and collate '
        "with dict(type='default_collate')"
    )


@MODELS.register_module()
class MultiViewDataPreprocessor(BaseDataPreprocessor):
    """Moves images to the device, converts them to float and normalises them; one image or several views per sample.

    Views may differ in size. Both collate functions of mmengine are understood: ``default_collate`` (a tensor, or V
    tensors) and ``pseudo_collate`` (B images, or V lists of B images), told apart by type and number of axes.

    Data samples stay where the data loader left them, on the CPU. Labels decide which rows enter which part of the
    loss; on the host this costs nothing, whereas reading them back from an accelerator would stall it at each step.

    Args:
        mean: Mean of each channel, in the units of the input (0 to 255 for images), in the order
            after ``to_rgb``.
        std: Standard deviation of each channel, same units.
        to_rgb: Whether to reverse the three channels (BGR, as OpenCV decodes, to RGB).
        non_blocking: Whether copies to the device overlap with computation; needs pinned memory.
        batch_augments: Transforms ``mmkd_ext.Batch*`` of a whole training batch on the device, before normalisation,
            in place of random transforms in the pipeline. The last may be :class:`mmkd_ext.BatchMultiView`; then the
            output has several views. Their random numbers follow from the run's seed, the iteration and the
            ``sample_idx`` of each image: a resumed run, and one in several processes, draws the same
            (but a sample that two processes have in one iteration gets the same views in both).
        channels_last: Whether the output has torch's memory format ``channels_last``, in which convolutions in half
            precision are fastest on recent GPUs.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        to_rgb: bool = False,
        non_blocking: bool = False,
        batch_augments: Sequence[Mapping[str, Any]] | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        if len(mean) != len(std):
            raise ValueError(
                f'MultiViewDataPreprocessor: expected mean and std of one length but got {len(mean)} and {len(std)}; '
                'give one value per channel'
            )
        if min(std) <= 0:
            raise ValueError(f'MultiViewDataPreprocessor: expected std > 0 but got {list(std)}; use 1 for no scaling')
        self.to_rgb = to_rgb
        self.batch_augments = BatchCompose(batch_augments) if batch_augments else None
        self.channels_last = channels_last
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Prepare a batch for the model.

        Args:
            data: Batch with ``inputs`` (uint8 or float) and, usually, ``data_samples``; other entries are
                passed on.
            training: Whether ``batch_augments`` apply.

        Returns:
            The same entries; ``inputs`` is one float tensor (B, c, h, w), or a list of V of them.

        Raises:
            TypeError: The batch is no mapping with ``inputs``, or these are no images; or no uint8 images, one per
                sample, to be augmented.
            ValueError: Images of a view differ in shape, or their channels do not match ``mean``.
            RuntimeError: There is no ``sample_idx``, seed or iteration to draw random numbers from.
        """
        if not isinstance(data, Mapping) or 'inputs' not in data:
            found = list(data) if isinstance(data, Mapping) else type(data).__name__
            raise TypeError(
                f"MultiViewDataPreprocessor: expected a batch dict with 'inputs' but got {found}; "
                'end the pipeline with PackInputs'
            )
        inputs = _batched(data['inputs'])
        views = [self._on_device(view) for view in ([inputs] if isinstance(inputs, Tensor) else inputs)]
        if training and self.batch_augments:
            if not isinstance(inputs, Tensor) or inputs.dtype != torch.uint8:
                raise TypeError(
                    'MultiViewDataPreprocessor: expected one uint8 image per sample for batch_augments but got '
                    f'{_describe(inputs)} of {views[0].dtype}; let the pipeline be PackInputs alone, without MultiView'
                )
            augmented = self.batch_augments(views[0], sample_draws(data.get('data_samples'), len(inputs)))
            views = augmented if isinstance(augmented, list) else [augmented]
            inputs = augmented
        views = [self._normalise(view) for view in views]
        return {**data, 'inputs': views[0] if isinstance(inputs, Tensor) else views}

    def _on_device(self, images: Tensor) -> Tensor:
        num_channels = len(self.mean)
        if images.shape[1] != num_channels:
            raise ValueError(
                f'MultiViewDataPreprocessor: expected {num_channels} channels as in mean but got images of shape '
                f'{tuple(images.shape)}; give mean and std one value per channel'
            )
        images = self.cast_data(images)
        return images.flip(1) if self.to_rgb else images

    def _normalise(self, images: Tensor) -> Tensor:
        memory_format = torch.channels_last if self.channels_last else torch.preserve_format
        return ((images.to(self.mean.dtype) - self.mean) / self.std).to(memory_format=memory_format)
