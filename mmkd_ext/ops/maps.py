"""Dense feature maps as rows of samples.

Shape suffixes: N images, C channels, H x W positions, T sampled positions of one image (tokens), M = N T rows, P
sampled positions of all images.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mmkd_ext.ops.arguments import check_dims


def pool_map(x: Tensor) -> Tensor:
    """Average a map over its positions, so that each image has one row.

    Args:
        x: Map of shape (N, C, H, W), or rows of shape (N, D).

    Returns:
        Shape (N, C); rows as they are.

    Raises:
        ValueError: ``x`` has another number of dimensions.

    Example:
        >>> pool_map(torch.ones(2, 8, 4, 4)).shape
        torch.Size([2, 8])
    """
    if x.ndim == 2:
        return x
    check_dims('pool_map', 'N C H W', x=x)
    return x.mean((2, 3))


def sample_tokens(
    student: Tensor, teacher: Tensor, num_tokens: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw random positions of each image, and take the features there as samples.

    Both networks are read at the same positions: the finer of the two grids is first averaged down to the coarser.

    Args:
        student: Map of shape (N, C, H, W).
        teacher: Map of shape (N, C', H', W').
        num_tokens: T, positions per image, drawn without replacement; all of them where the grid has fewer.
        generator: Source of the positions; each call draws anew. On the device of the maps it costs no transfer.

    Returns:
        Rows of student and teacher, shapes (M, C) and (M, C'), image by image.

    Raises:
        ValueError: A tensor is no map, the numbers of images differ, or ``num_tokens`` is not positive.

    Example:
        >>> student, teacher = torch.rand(2, 8, 4, 4), torch.rand(2, 32, 8, 8)
        >>> [tuple(x.shape) for x in sample_tokens(student, teacher, 5, torch.Generator())]
        [(10, 8), (10, 32)]
    """
    student, teacher = _on_one_grid('sample_tokens', student, teacher, num_tokens=num_tokens)
    num_images, num_positions = len(student), student.shape[2] * student.shape[3]
    # Where the largest of random numbers are is a draw without replacement, one for each image.
    lots = torch.rand(num_images, num_positions, generator=generator, device=generator.device)
    chosen_NT = lots.topk(min(num_tokens, num_positions)).indices
    student, teacher = (_take(x, chosen_NT.to(x.device)) for x in (student, teacher))
    return student, teacher


def sample_positions(
    student: Tensor, teacher: Tensor, num_positions: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw random positions, the same in all images, and take the whole batch at each of them.

    Both networks are read at the same positions: the finer of the two grids is first averaged down to the coarser. A
    relation of samples at each position then has N rows, and the mean over the positions drawn is an unbiased estimate
    of the mean over all.

    Args:
        student: Map of shape (N, C, H, W).
        teacher: Map of shape (N, C', H', W').
        num_positions: P, drawn without replacement; all of them where the grid has fewer.
        generator: Source of the positions; each call draws anew. On the device of the maps it costs no transfer.

    Returns:
        Batches of student and teacher, shapes (P, N, C) and (P, N, C').

    Raises:
        ValueError: A tensor is no map, the numbers of images differ, or ``num_positions`` is not positive.
    """
    student, teacher = _on_one_grid('sample_positions', student, teacher, num_positions=num_positions)
    order = torch.randperm(student.shape[2] * student.shape[3], generator=generator, device=generator.device)
    chosen_P = order[:num_positions].to(student.device)
    student, teacher = (x.flatten(2).index_select(2, chosen_P).permute(2, 0, 1) for x in (student, teacher))
    return student, teacher


def _on_one_grid(caller: str, student: Tensor, teacher: Tensor, **number: int) -> tuple[Tensor, Tensor]:
    """Average the finer of the two grids down to the coarser."""
    check_dims(caller, 'N C H W', student=student, teacher=teacher)
    ((name, value),) = number.items()
    if len(student) != len(teacher) or value < 1:
        raise ValueError(
            f'{caller}: expected maps of the same images and {name} >= 1 but got {tuple(student.shape)}, '
            f'{tuple(teacher.shape)} and {value}; feed both networks the same images'
        )
    height, width = map(min, student.shape[2:], teacher.shape[2:])
    size = height, width
    student, teacher = (x if x.shape[2:] == size else adaptive_avg_pool2d(x, size) for x in (student, teacher))
    return student, teacher


def _take(x_NCHW: Tensor, chosen_NT: Tensor) -> Tensor:
    index_NCT = chosen_NT[:, None].expand(-1, x_NCHW.shape[1], -1)
    return x_NCHW.flatten(2).gather(2, index_NCT).transpose(1, 2).flatten(0, 1)
