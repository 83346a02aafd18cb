"""Dense feature maps as rows of samples, whatever the order of their axes and however far images are padded.

Shape suffixes: N images, C channels, H x W positions, L = P + H W tokens, T sampled positions of one image (tokens),
M rows, at most N T, P sampled positions of all images.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mmkd_ext.ops.arguments import check_dims

_AXES = ('NC', 'NCHW', 'NHWC', 'NLC', 'NCL', 'LNC')


@dataclass(frozen=True)
class MapLayout:
    """What the axes of a tensor are.

    Attributes:
        axes: ``'NCHW'``, ``'NHWC'``, or of tokens ``'NLC'``, ``'NCL'`` or ``'LNC'``; ``'NC'`` for rows.
        prefix_tokens: Number of tokens before those of the positions: class token, registers.
        image_size: Height and width of the images, which tell the grid of the tokens; None: they are square.

    Raises:
        ValueError: There are no such axes, or a number makes no sense.
    """

    axes: str = 'NCHW'
    prefix_tokens: int = 0
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.axes not in _AXES:
            raise ValueError(f'expected layout in {_AXES} but got {self.axes!r}; use one of these words')
        if self.prefix_tokens < 0 or (self.prefix_tokens and 'L' not in self.axes):
            raise ValueError(
                f'expected prefix_tokens >= 0, of a layout with tokens, but got {self.prefix_tokens} for {self.axes}'
            )

    def images_first(self, x: Tensor) -> Tensor:
        """Return a view whose first axis counts images."""
        return x.movedim(self.axes.index('N'), 0)

    def positions(self, x: Tensor) -> Tensor:
        """Return a view (N, C, ...) without prefix tokens; positions are one axis, or two.

        Raises:
            ValueError: ``x`` has another number of axes, or no token but the prefix.
        """
        check_dims('MapLayout', ' '.join(self.axes), x=x)
        rest = [axis for axis in self.axes if axis not in 'NC']
        x = x.permute([self.axes.index(axis) for axis in ('N', 'C', *rest)])
        if 'L' not in self.axes:
            return x
        if x.shape[2] <= self.prefix_tokens:
            raise ValueError(
                f'MapLayout: expected more than prefix_tokens={self.prefix_tokens} tokens but got {x.shape[2]}; '
                'lower it, or tap a layer with tokens of positions'
            )
        return x[:, :, self.prefix_tokens :]

    def to_map(self, x: Tensor) -> Tensor:
        """Return a view (N, C, H, W).

        Raises:
            ValueError: ``x`` has another number of axes, or its tokens are of no grid of the shape of the images.
        """
        x = self.positions(x)
        if x.ndim != 3:
            return x
        grids = token_grids(x.shape[2], self.image_size or (1 << 20, 1 << 20))
        if len(grids) != 1:
            raise ValueError(
                f'MapLayout: expected the tokens of one grid on images of {self.image_size or "any square size"} after '
                f'{self.prefix_tokens} prefix tokens but got {x.shape[2]}, which make {grids or "none"}; set '
                "prefix_tokens=, or use pooling='gap', which needs no grid"
            )
        return x.unflatten(2, grids[0])


def token_grids(num_tokens: int, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the grids of so many positions that a network of one stride makes of an image.

    Args:
        num_tokens: Without prefix tokens.
        image_size: Height and width. Of a square image the grid is square.

    Returns:
        Heights and widths; each is that of the image divided by the stride, rounded up or down.
    """
    height, width = image_size
    if height == width:
        side = math.isqrt(num_tokens)
        return [(side, side)] if side and side * side == num_tokens else []
    grids = []
    for rows in (rows for rows in range(1, min(num_tokens, height) + 1) if num_tokens % rows == 0):
        columns = num_tokens // rows
        # Strides that round to so many rows, up or down, and to so many columns, overlap.
        low = max(height / (rows + 1), width / (columns + 1))
        high = min(height / max(rows - 1, 0.5), width / max(columns - 1, 0.5))
        strides = range(max(math.ceil(low), 1), math.floor(high) + 1)
        if any(_rounds(height, stride, rows) and _rounds(width, stride, columns) for stride in strides):
            grids.append((rows, columns))
    return grids


def _rounds(size: int, stride: int, number: int) -> bool:
    return number in (size // stride, -(-size // stride))


@dataclass(frozen=True)
class Extents:
    """How far the images of a padded batch reach from its upper left corner.

    Attributes:
        sizes: Height and width of each image.
        padded: Height and width of the batch.
    """

    sizes: tuple[tuple[int, int], ...]
    padded: tuple[int, int]

    def mask(self, grid: tuple[int, int]) -> Tensor:
        """Return which cells of a grid over the batch show a part of the image, (N, H, W) bool on the CPU."""
        height_N, width_N = (
            torch.tensor([-(-size[axis] * grid[axis] // self.padded[axis]) for size in self.sizes]) for axis in (0, 1)
        )
        rows_NH1 = (torch.arange(grid[0]) < height_N[:, None])[:, :, None]
        return rows_NH1 & (torch.arange(grid[1]) < width_N[:, None])[:, None, :]


def pool_map(x: Tensor, layout: MapLayout | None = None, extents: Extents | None = None) -> Tensor:
    """Average a map over its positions, so that each image has one row.

    Args:
        x: Map of shape (N, C, H, W), or as ``layout`` says, or rows of shape (N, D).
        layout: What the axes of ``x`` are; None: (N, C, H, W), which a map of (N, H, W, C) seldom looks like.
        extents: Of a padded batch; positions in the padding do not count.

    Returns:
        Shape (N, C); rows as they are.

    Raises:
        ValueError: ``x`` has another number of dimensions, or without ``layout`` looks like (N, H, W, C).

    Example:
        >>> pool_map(torch.ones(2, 8, 4, 4)).shape
        torch.Size([2, 8])
    """
    if x.ndim == 2:
        return x
    if layout is None:
        _check_looks('pool_map', x=x)
        layout = MapLayout()
    if extents is not None:
        return _mean_inside(layout.to_map(x), extents)
    x = layout.positions(x)
    return x.mean((2, 3)) if x.ndim == 4 else x.mean(2)


def sample_tokens(
    student: Tensor,
    teacher: Tensor,
    num_tokens: int,
    generator: torch.Generator,
    *,
    layouts: tuple[MapLayout | None, MapLayout | None] = (None, None),
    extents: Extents | None = None,
    usable: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw random positions of each image, and take the features there as samples.

    Both networks are read at the same positions: the finer of the two grids is first averaged down to the coarser.

    Args:
        student: Map of shape (N, C, H, W), or as its layout says.
        teacher: Map of shape (N, C', H', W'), or as its layout says.
        num_tokens: T, positions per image, drawn without replacement; all of them where the grid has fewer.
        generator: Source of the positions; each call draws anew. On the device of the maps it costs no transfer.
        layouts: Of student and teacher; None: (N, C, H, W).
        extents: Of a padded batch; no position in the padding is drawn.
        usable: (N, any height, any width) bool: nor one most of whose pixels are not usable. On a GPU, the host
            waits for it.

    Returns:
        Rows of student and teacher, shapes (M, C) and (M, C'), image by image; fewer of images with fewer positions.

    Raises:
        ValueError: A tensor is no map, the numbers of images differ, or ``num_tokens`` is not positive.

    Example:
        >>> student, teacher = torch.rand(2, 8, 4, 4), torch.rand(2, 32, 8, 8)
        >>> [tuple(x.shape) for x in sample_tokens(student, teacher, 5, torch.Generator())]
        [(10, 8), (10, 32)]
    """
    maps = _on_one_grid('sample_tokens', student, teacher, layouts, extents, num_tokens=num_tokens)
    num_images, grid = len(maps[0]), maps[0].shape[2:]
    # Where the largest of random numbers are is a draw without replacement, one for each image.
    lots = torch.rand(num_images, grid.numel(), generator=generator, device=generator.device)
    mask = _mask(grid, extents, usable)
    if mask is not None:
        lots = lots.masked_fill(~mask.flatten(1).to(lots.device), -1.0)
    chosen_NT = lots.topk(min(num_tokens, grid.numel())).indices
    student, teacher = (_take(x, chosen_NT.to(x.device)) for x in maps)
    if mask is None:
        return student, teacher
    # Those of the padding were drawn last; how many there are is known without waiting for a GPU.
    is_drawn = torch.arange(chosen_NT.shape[1]) < mask.flatten(1).sum(1, keepdim=True)
    kept_M = is_drawn.flatten().nonzero().flatten().to(student.device)
    return student.index_select(0, kept_M), teacher.index_select(0, kept_M)


def sample_positions(
    student: Tensor,
    teacher: Tensor,
    num_positions: int,
    generator: torch.Generator,
    *,
    layouts: tuple[MapLayout | None, MapLayout | None] = (None, None),
    extents: Extents | None = None,
    usable: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw random positions, the same in all images, and take the whole batch at each of them.

    Both networks are read at the same positions: the finer of the two grids is first averaged down to the coarser. A
    relation of samples at each position then has N rows, and the mean over the positions drawn is an unbiased estimate
    of the mean over all.

    Args:
        student: Map of shape (N, C, H, W), or as its layout says.
        teacher: Map of shape (N, C', H', W'), or as its layout says.
        num_positions: P, drawn without replacement; all of them where the grid has fewer.
        generator: Source of the positions; each call draws anew. On the device of the maps it costs no transfer.
        layouts: Of student and teacher; None: (N, C, H, W).
        extents: Of a padded batch; only positions that all images reach are drawn.
        usable: (N, any height, any width) bool: only those most of whose pixels are usable in all images, too. On a
            GPU, the host waits for it.

    Returns:
        Batches of student and teacher, shapes (P, N, C) and (P, N, C'); P is 0 where no position suits all images.

    Raises:
        ValueError: A tensor is no map, the numbers of images differ, or ``num_positions`` is not positive.
    """
    student, teacher = _on_one_grid('sample_positions', student, teacher, layouts, extents, num_positions=num_positions)
    grid = student.shape[2:]
    mask = _mask(grid, extents, usable)
    candidates = None if mask is None else mask.all(0).flatten().nonzero().flatten()
    num_candidates = grid.numel() if candidates is None else len(candidates)
    order = torch.randperm(num_candidates, generator=generator, device=generator.device)
    chosen_P = order[:num_positions].to(student.device)
    if candidates is not None:
        chosen_P = candidates.to(student.device).index_select(0, chosen_P)
    student, teacher = (x.flatten(2).index_select(2, chosen_P).permute(2, 0, 1) for x in (student, teacher))
    return student, teacher


def _check_looks(caller: str, **tensors: Tensor) -> None:
    """Refuse what is no map (N, C, H, W), or looks like one of (N, H, W, C): a square before many channels."""
    check_dims(caller, 'N C H W', **tensors)
    for name, x in tensors.items():
        _, first, second, third = x.shape
        if max(first, second) <= 2 * min(first, second) and third >= 4 * max(first, second):
            raise ValueError(
                f'{caller}: expected {name} of shape (N, C, H, W) but got {tuple(x.shape)}, which looks like '
                "(N, H, W, C); say which: layout='NHWC' or layout='NCHW' of a term, MapLayout('NHWC') of a function"
            )


def _on_one_grid(
    caller: str,
    student: Tensor,
    teacher: Tensor,
    layouts: tuple[MapLayout | None, MapLayout | None],
    extents: Extents | None,
    **number: int,
) -> list[Tensor]:
    """Average the finer of the two grids down to the coarser; maps (N, C, H, W)."""
    for layout, named in zip(layouts, ({'student': student}, {'teacher': teacher}), strict=True):
        if layout is None:
            _check_looks(caller, **named)
    maps = [(layout or MapLayout()).to_map(x) for layout, x in zip(layouts, (student, teacher), strict=True)]
    ((name, value),) = number.items()
    if len(maps[0]) != len(maps[1]) or value < 1:
        raise ValueError(
            f'{caller}: expected maps of the same images and {name} >= 1 but got {tuple(student.shape)}, '
            f'{tuple(teacher.shape)} and {value}; feed both networks the same images'
        )
    size = min(maps[0].shape[2], maps[1].shape[2]), min(maps[0].shape[3], maps[1].shape[3])
    return [x if x.shape[2:] == size else _averaged_down(x, size, extents) for x in maps]


def _averaged_down(x_NCHW: Tensor, size: tuple[int, int], extents: Extents | None) -> Tensor:
    if extents is None:
        return adaptive_avg_pool2d(x_NCHW, size)
    inside = extents.mask((x_NCHW.shape[2], x_NCHW.shape[3]))[:, None].to(x_NCHW.device)
    share = adaptive_avg_pool2d(inside.to(x_NCHW.dtype), size)
    return adaptive_avg_pool2d(x_NCHW.where(inside, 0.0), size) / share.clamp(min=torch.finfo(share.dtype).tiny)


def _mean_inside(x_NCHW: Tensor, extents: Extents) -> Tensor:
    inside = extents.mask((x_NCHW.shape[2], x_NCHW.shape[3]))[:, None]
    number_N1 = inside.flatten(1).sum(1, keepdim=True).to(x_NCHW.device)
    return x_NCHW.where(inside.to(x_NCHW.device), 0.0).sum((2, 3)) / number_N1


def _mask(grid: torch.Size, extents: Extents | None, usable: Tensor | None) -> Tensor | None:
    """Return which positions may be drawn, (N, H, W) on the CPU; None: all."""
    parts = [] if extents is None else [extents.mask((grid[0], grid[1]))]
    if usable is not None:
        parts.append(adaptive_avg_pool2d(usable[:, None].float(), (grid[0], grid[1]))[:, 0].cpu() > 0.5)
    mask = torch.stack(parts).all(0) if parts else None
    return None if mask is None or bool(mask.all()) else mask


def _take(x_NCHW: Tensor, chosen_NT: Tensor) -> Tensor:
    index_NCT = chosen_NT[:, None].expand(-1, x_NCHW.shape[1], -1)
    return x_NCHW.flatten(2).gather(2, index_NCT).transpose(1, 2).flatten(0, 1)
