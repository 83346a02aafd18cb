"""Which axes of a tapped tensor are images, channels and positions: found in one forward of its model, or asked for.

A layer tells where it expects channels: a convolution first, a linear layer or a layer norm last. So the layers that
make a tapped tensor, or read it, say what its axes are, whatever the model calls its layers. The number of images, the
shape of the images and the class tokens that a model owns say the rest.

Shape suffixes: N images, C channels, H x W positions, L tokens.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_ext.distill.features import Tap
from mmkd_ext.ops.maps import Extents, MapLayout, token_grids

ROWS = 'rows'
"""The layout of a tensor whose first axis counts rows, whatever these are, and is compared as it is."""
_WORDS = ('NCHW', 'NHWC', 'NLC', 'NCL', 'LNC')
_CHANNELS_FIRST = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.modules.batchnorm._BatchNorm, nn.GroupNorm),
    *(nn.modules.instancenorm._InstanceNorm, nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd),
    *(nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd),
)
_PREFIX_NUMBERS = ('num_prefix_tokens', 'num_extra_tokens')
_PREFIX_TENSORS = ('cls_token', 'class_token', 'dist_token', 'reg_token', 'register_tokens')
_MASKING = ('random_masking', 'mask_ratio')


@dataclass(frozen=True)
class Batch:
    """What is known of the images that a network gets.

    Attributes:
        num_images: N; of several views of a sample, the samples.
        image_size: Height and width; None where they differ or are not known.
        num_views: Images, crops or frames of one sample.
    """

    num_images: int
    image_size: tuple[int, int] | None = None
    num_views: int = 1

    def counts(self, size: int) -> bool:
        """Whether an axis of this size may count the images: those of one view, or of several."""
        return size in [self.num_images * views for views in range(1, self.num_views + 1)]


@dataclass
class _Visit:
    """One call of a layer that tells where channels are; ``read`` and ``made`` are what :func:`_where` returns."""

    channels_first: bool | None
    read: tuple[Any, ...]
    made: tuple[Any, ...]


@dataclass
class _Taken:
    """When a tapped module began and ended, as numbers of visits."""

    begin: int = 0
    end: int = 0


class LayoutProbe:
    """Watches the layers of a model in one forward; a context manager that leaves no hook behind.

    Args:
        model: The model.
        taps: Texts for :meth:`Tap.parse`.
    """

    def __init__(self, model: nn.Module, taps: Iterable[str]) -> None:
        self.model = model
        self._taken = {Tap.parse(text).path: _Taken() for text in taps}
        self._visits: list[_Visit] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> 'LayoutProbe':
        self._visits.clear()
        for path, module in self.model.named_modules():
            if path in self._taken:
                self._handles.append(module.register_forward_pre_hook(_Begin(self, path)))
            if _tells(module):
                self._handles.append(module.register_forward_hook(_Watch(self, path)))
            if path in self._taken:
                self._handles.append(module.register_forward_hook(_End(self, path)))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def channel_axis(self, text: str, x: Tensor) -> int | None:
        """Return the axis of the channels of a tapped tensor that is still the one of the forward.

        Args:
            text: The tap.
            x: Its tensor, held since, so that its memory has not been given to another one.

        Returns:
            None where no layer tells, or layers contradict each other.
        """
        tap = Tap.parse(text)
        taken = self._taken[tap.path]
        first = taken.begin if tap.is_input else taken.end
        axes = {_axis_of(visit, x) for visit in self._visits[first:]} - {None}
        if not axes:
            # Not what read it, but what made it: the last layer inside, or that before what receives it.
            visits = self._visits[: taken.begin] if tap.is_input else self._visits[taken.begin : taken.end]
            parts = slice(0, 3) if tap.is_input else slice(1, 2)  # memory, shape and strides, or the shape alone
            made = [visit.channels_first for visit in visits if visit.made[parts] == _where(x)[parts]]
            axes = {1 if channels_first else x.ndim - 1 for channels_first in made[-1:] if channels_first is not None}
        return axes.pop() if len(axes) == 1 else None

    def owners(self, text: str) -> Iterator[nn.Module]:
        """Yield the modules that contain the tapped one, itself first, the model last."""
        modules, path = dict(self.model.named_modules()), Tap.parse(text).path
        while path:
            yield modules[path]
            path = path.rpartition('.')[0]
        yield self.model


class _Begin:
    """Notes when a tapped module begins."""

    def __init__(self, probe: LayoutProbe, path: str) -> None:
        self.probe, self.path = probe, path

    def __call__(self, module: nn.Module, args: tuple) -> None:
        self.probe._taken[self.path].begin = len(self.probe._visits)


class _End(_Begin):
    """Notes when a tapped module ends."""

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> None:  # type: ignore[override]
        self.probe._taken[self.path].end = len(self.probe._visits)


class _Watch(_Begin):
    """Notes what a layer read and made."""

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> None:  # type: ignore[override]
        if not (args and isinstance(args[0], Tensor) and isinstance(output, Tensor) and args[0].ndim > 1):
            return
        visit = _Visit(_reads_first(module, args[0]), _where(args[0]), _where(output))
        self.probe._visits.append(visit)


def _tells(module: nn.Module) -> bool:
    """Whether a layer expects channels on an axis that is known."""
    return isinstance(module, (*_CHANNELS_FIRST, nn.Linear)) or _norm_size(module) is not None


def _reads_first(module: nn.Module, x: Tensor) -> bool | None:
    """Return whether a layer takes the second axis of its input for the channels, or (False) the last."""
    if isinstance(module, _CHANNELS_FIRST):
        return True
    size = _norm_size(module)
    if size is None:
        return False
    # Layer norms of some projects have the channels first, and keep the name.
    if (x.shape[1] == size) != (x.shape[-1] == size):
        return x.shape[1] == size
    return None if '2d' in type(module).__name__ or hasattr(module, 'data_format') else False


def _norm_size(module: nn.Module) -> int | None:
    """Return the number of channels of a layer norm, whoever's class it is."""
    shape = getattr(module, 'normalized_shape', ())
    return shape[0] if 'Norm' in type(module).__name__ and isinstance(shape, Sequence) and len(shape) == 1 else None


def _where(x: Tensor) -> tuple[Any, ...]:
    return x.untyped_storage().data_ptr(), tuple(x.shape), x.stride(), x.numel()


def _axis_of(visit: _Visit, x: Tensor) -> int | None:
    """Return the axis of ``x`` that a layer which read it, or a view of all of it, took for the channels."""
    pointer, shape, stride, size = visit.read
    is_other = pointer != x.untyped_storage().data_ptr() or size != x.numel() or len(shape) < 3
    if is_other or visit.channels_first is None:
        return None
    axis = 1 if visit.channels_first else len(shape) - 1
    places = [place for place in range(x.ndim) if (x.shape[place], x.stride(place)) == (shape[axis], stride[axis])]
    return places[0] if len(places) == 1 else None


# --------------------------------------------------------------------------------------------------
# From what is seen to a layout.


def check_layout(caller: str, layout: object, prefix_tokens: object) -> None:
    """Refuse what a config cannot ask for.

    Raises:
        ValueError: The layout has another name, or the number makes no sense.
    """
    if layout is not None and layout not in (*_WORDS, ROWS):
        raise ValueError(f'{caller}: expected layout in {(*_WORDS, ROWS)} but got {layout!r}; use one of these words')
    is_fit = isinstance(prefix_tokens, int) and not isinstance(prefix_tokens, bool) and prefix_tokens >= 0
    if prefix_tokens is not None and not is_fit:
        raise ValueError(f'{caller}: expected prefix_tokens >= 0 but got {prefix_tokens!r}; give a number of tokens')


def find_layout(
    tap: str,
    x: Tensor,
    batch: Batch,
    probe: LayoutProbe,
    *,
    layout: str | None = None,
    prefix_tokens: int | None = None,
    needs: str | None = None,
) -> MapLayout | None:
    """Return what the axes of a tapped tensor are.

    Args:
        tap: The tap.
        x: Its tensor.
        batch: The images that its network got.
        probe: Of the forward that made it.
        layout: What the user says of the axes; ``'rows'``: do not ask.
        prefix_tokens: What the user says of class tokens.
        needs: What must be known: ``'mean'`` of the positions, their ``'grid'``; None: where the images are.

    Returns:
        None where the axes are not known and need not be.

    Raises:
        ValueError: The first axis does not count the images, or what is needed is not known; says what to write.
    """
    if layout == ROWS:
        return None
    found = _told(tap, x, batch, layout) if layout else _seen(tap, x, batch, probe, needs)
    if found is None or 'L' not in found.axes:
        return found
    num_tokens = x.shape[found.axes.index('L')]
    if needs == 'grid' and not layout:
        _check_order(tap, x, num_tokens, probe)
    masking = _masking(tap, num_tokens, probe)
    if masking and needs != 'mean':
        raise ValueError(
            f'tap {tap!r}: expected tokens in the order of the image but {masking} keeps a random part of them, '
            f"{tuple(x.shape)}; use pooling='gap', tap a layer behind its decoder, or write layout='rows' for a loss "
            'that knows which are kept'
        )
    if needs is None:
        return found
    prefix = prefix_tokens
    if prefix is None:
        prefix = _prefix(tap, num_tokens, batch, probe, is_masked=bool(masking))
    return MapLayout(found.axes, prefix, batch.image_size)


def _told(tap: str, x: Tensor, batch: Batch, layout: str) -> MapLayout:
    """Return the layout that the user names, if the tensor can have it."""
    found = MapLayout(layout)
    if len(layout) == 2 or len(layout) != x.ndim or not batch.counts(x.shape[layout.index('N')]):
        raise ValueError(
            f'tap {tap!r}: expected a tensor {tuple(layout)} with {batch.num_images} images on the axis N for '
            f'layout={layout!r} but got {tuple(x.shape)}; choose another layout'
        )
    return found


def _seen(tap: str, x: Tensor, batch: Batch, probe: LayoutProbe, needs: str | None) -> MapLayout | None:
    """Return the layout that the shape and the layers around the tap tell."""
    _check_images(tap, x, batch)
    axes = _axes(x, batch, probe.channel_axis(tap, x))
    if axes is None and needs:
        words = [word for word in _WORDS if len(word) == x.ndim]
        raise ValueError(
            f'tap {tap!r}: expected to find out the order of the axes of {tuple(x.shape)} from the layers around it '
            'but could not; '
            + (
                f'write layout= to the term, one of {words}, or layout=dict(student=..., teacher=...), or tap another '
                'layer'
                if words
                else 'tap a layer with maps of four axes or tokens of three'
            )
        )
    return MapLayout(axes) if axes else None


def _check_images(tap: str, x: Tensor, batch: Batch) -> None:
    """Refuse a tensor whose images are found neither on the first axis nor, of tokens, on the second."""
    if x.ndim and batch.counts(x.shape[0]):
        return
    if x.ndim == 3 and batch.counts(x.shape[1]):
        return
    raise ValueError(
        f'tap {tap!r}: expected the {batch.num_images} images of the rehearsal on the first axis but got '
        f'{tuple(x.shape)}, so layers, queries or windows would be compared in the place of images; tap a layer '
        "with one row or map per image (or 'tap[-1]' of a tuple), or write layout='rows' if that is what the loss takes"
    )


def _check_order(tap: str, x: Tensor, num_tokens: int, probe: LayoutProbe) -> None:
    """Refuse tokens that are not in the order of the image, and layers that mix tokens as others do channels."""
    for module in probe.owners(tap):
        number = _num_patches(getattr(module, 'patch_embed', getattr(module, 'stem', None)))
        is_mixing = number is not None and number in x.shape[1:] and number != num_tokens and number == x.shape[-1]
        if hasattr(module, 'reroll') or is_mixing:
            raise ValueError(
                f'tap {tap!r}: expected tokens in the order of the image but {type(module).__name__} has them in '
                f"another one, or on another axis of {tuple(x.shape)}; use pooling='gap', tap another layer, or write "
                'layout= to the term'
            )


def _axes(x: Tensor, batch: Batch, channel_axis: int | None) -> str | None:
    """Return the word for the axes."""
    if x.ndim == 2:
        return 'NC'
    if x.ndim == 3:
        if not batch.counts(x.shape[0]):
            return 'LNC'
        if channel_axis is None:
            is_grid = [_is_grid(x.shape[axis], batch.image_size) for axis in (1, 2)]
            return 'NLC' if is_grid == [True, False] else 'NCL' if is_grid == [False, True] else None
        return {1: 'NCL', 2: 'NLC'}.get(channel_axis)
    if x.ndim != 4:
        return None
    if channel_axis is None:
        height, width = batch.image_size or (1, 1)
        fits = [_is_like(size, height / width) for size in (tuple(x.shape[2:]), tuple(x.shape[1:3]))]
        return 'NCHW' if fits == [True, False] else 'NHWC' if fits == [False, True] else None
    if channel_axis == 3 and batch.image_size and not _is_like(x.shape[1:3], batch.image_size[0] / batch.image_size[1]):
        return None  # heads or blocks, and tokens
    return {1: 'NCHW', 3: 'NHWC'}.get(channel_axis)


def _is_grid(num_tokens: int, image_size: tuple[int, int] | None) -> bool:
    """Whether so many tokens are positions, after a class token or none."""
    size = image_size or (1, 1)
    return any(token_grids(num_tokens - prefix, size) for prefix in (0, 1) if num_tokens > prefix)


def _is_like(grid: Sequence[int], ratio: float) -> bool:
    """Whether a grid has the shape of the images, within one cell."""
    return abs(grid[0] - grid[1] * ratio) <= max(1.0, ratio)


def _prefix(tap: str, num_tokens: int, batch: Batch, probe: LayoutProbe, *, is_masked: bool) -> int:
    """Return the number of tokens before those of the positions.

    Raises:
        ValueError: None, or several, fit the images.
    """
    owned = next(filter(None, map(_owned_prefix, probe.owners(tap))), None)
    if is_masked:  # what is left is of no grid
        return owned or 0
    candidates = {0, owned} if owned is not None else {0, 1, 2}
    fits = (
        sorted(
            number
            for number in candidates
            if number < num_tokens and token_grids(num_tokens - number, batch.image_size)
        )
        if batch.image_size
        else []
    )
    if len(fits) != 1:
        raise ValueError(
            f'tap {tap!r}: expected tokens of one grid on images of {batch.image_size}, after {sorted(candidates)} '
            f'class tokens, but got {num_tokens} tokens, which fit for {fits or "none of these"}; write '
            'prefix_tokens= to the term, or prefix_tokens=dict(student=..., teacher=...)'
        )
    return fits[0]


def _owned_prefix(module: nn.Module) -> int | None:
    """Return how many class tokens and registers a model says that it has, or has as tensors; None: it has none."""
    for name in _PREFIX_NUMBERS:
        number = getattr(module, name, None)
        if isinstance(number, int) and number:
            return number
    tensors = [getattr(module, name, None) for name in _PREFIX_TENSORS]
    return sum(tensor.shape[-2] for tensor in tensors if isinstance(tensor, Tensor) and tensor.ndim >= 2) or None


def _masking(tap: str, num_tokens: int, probe: LayoutProbe) -> str | None:
    """Return the name of the module that leaves out a random part of the tokens, if one did."""
    for module in probe.owners(tap):
        is_masking = any(getattr(module, name, None) for name in _MASKING)
        drop = getattr(module, 'patch_drop', None)
        is_dropping = module.training and bool(getattr(drop, 'prob', 0))
        if is_masking or is_dropping:
            number = _num_patches(getattr(module, 'patch_embed', None))
            if number is None or num_tokens not in (number, number + (_owned_prefix(module) or 0)):
                return type(module).__name__
    return None


def _num_patches(embed: Any) -> int | None:
    for name in ('num_patches', 'init_out_size', 'grid_size'):
        value = getattr(embed, name, None)
        if isinstance(value, int):
            return value
        if isinstance(value, Sequence) and value and all(isinstance(item, int) for item in value):
            return int(torch.tensor(value).prod())
    return None


def batch_of(call: Mapping[str, Any]) -> Batch:
    """Return what is known of the images in the arguments of a student's forward."""
    inputs = call['inputs']
    views = inputs if isinstance(inputs, Sequence) else [inputs]
    tensors = [view for view in views if isinstance(view, Tensor)]
    if not tensors:
        return Batch(len(inputs))
    sizes = {(int(view.shape[-2]), int(view.shape[-1])) for view in tensors if view.ndim >= 4}
    frames = max([int(torch.tensor(view.shape[1:-3]).prod()) for view in tensors if view.ndim > 4], default=1)
    return Batch(len(tensors[0]), sizes.pop() if len(sizes) == 1 else None, len(tensors) * frames)


# --------------------------------------------------------------------------------------------------
# Which positions of a batch show an image, and which have a label.


def extents_of(data_samples: Sequence[Any] | None, image_size: tuple[int, int] | None) -> Extents | None:
    """Return how far the images of a padded batch reach.

    Detectors and segmentors of OpenMMLab pad at the right and at the bottom, and note it: ``img_shape`` is the image,
    ``batch_input_shape`` or ``pad_shape`` the batch. Where a sample lacks one, or they do not fit the batch (an
    ``img_shape`` from before a transform that does not keep it), nothing is known.

    Args:
        data_samples: The batch's samples.
        image_size: Height and width of the batch.

    Returns:
        None where nothing is padded, or known of it.
    """
    if image_size is None or not data_samples:
        return None
    sizes = []
    for sample in data_samples:
        padded = [_size(sample, name) for name in ('batch_input_shape', 'pad_shape')]
        size = _size(sample, 'img_shape')
        if image_size not in padded or size is None or min(size) < 1:
            return None
        if size[0] > image_size[0] or size[1] > image_size[1]:
            return None
        sizes.append(size)
    return None if all(size == image_size for size in sizes) else Extents(tuple(sizes), image_size)


def labelled_pixels(data_samples: Sequence[Any] | None, ignore_index: int) -> Tensor | None:
    """Return which pixels have a class in the ground truth of segmentation, (N, H, W) bool; None: there is none."""
    maps: list[Any] = [getattr(getattr(sample, 'gt_sem_seg', None), 'data', None) for sample in data_samples or ()]
    if not maps or any(not isinstance(labels, Tensor) or labels.ndim < 2 for labels in maps):
        return None
    if len({labels.shape[-2:] for labels in maps}) > 1:
        return None
    return torch.stack([labels.reshape(-1, *labels.shape[-2:])[0] for labels in maps]) != ignore_index


def _size(sample: Any, name: str) -> tuple[int, int] | None:
    shape = getattr(sample, name, None)
    return (int(shape[0]), int(shape[1])) if shape is not None and len(shape) >= 2 else None
