"""From images to features: batches of one or several views, normalised and augmented, and backbones for small images.

Shape legend: V views, B batch rows, c channels, h and w pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModule, Sequential
from torch import Tensor, nn

from mmkd_ext.registry import MODELS
from mmkd_ext.transforms.batch import BatchCompose
from mmkd_ext.transforms.draws import sample_draws


def _is_tensors(value: Any, dim: int) -> bool:
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


def _batched(inputs: Any) -> Tensor | list[Tensor]:
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

    # As caches of version 0.1 know it.
    fingerprint_name = 'mmkd_ext.models.data_preprocessor.MultiViewDataPreprocessor'

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


# --------------------------------------------------------------------------------------------------
# Backbones for small images: a plain one, the residual networks of the CIFAR benchmarks, and a pooling neck.

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


def _conv(width_in: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)


def _conv_norm_relu(width_in: int, width: int, stride: int = 1) -> list[nn.Module]:
    return [_conv(width_in, width, stride), nn.BatchNorm2d(width), nn.ReLU()]


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
            layers += _conv_norm_relu(width_in, width)
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
        stem = nn.Sequential(*_conv_norm_relu(in_channels, stem_channels))
        widths = [stem_channels, base_channels, 2 * base_channels, 4 * base_channels]
        super().__init__(stem, widths, _BasicBlock, (depth - 2) // 6, out_indices, init_cfg)


class _BasicBlock(BaseModule):
    """Two 3x3 convolutions with batch norm, and a way around them."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        layers = [*_conv_norm_relu(width_in, width, stride), _conv(width, width), nn.BatchNorm2d(width)]
        self.residual = nn.Sequential(*layers)
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
        super().__init__(
            _conv(in_channels, widths[0]), widths, _PreActivationBlock, (depth - 4) // 6, out_indices, init_cfg
        )
        last: Sequential = self.stages[-1]
        last.append(nn.BatchNorm2d(widths[-1])).append(nn.ReLU())


class _PreActivationBlock(BaseModule):
    """Two 3x3 convolutions, each behind batch norm and ReLU, and a way around them."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width_in)
        self.residual = nn.Sequential(*_conv_norm_relu(width_in, width, stride), _conv(width, width))
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
