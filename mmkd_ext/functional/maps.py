"""Dense feature maps as rows of samples.

Shape suffixes: N images, C channels, H x W positions, T sampled positions (tokens), M = N T rows.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mmkd_ext.functional.checks import check_dims

__all__ = ['pool_map', 'sample_tokens']


def pool_map(x: Tensor) -> Tensor:
    """Average a map over its positions, so that each image has one row.

    Args:
        x: Map of shape (N, C, H, W), or rows of shape (N, D).

    Returns:
        Shape (N, C); rows as they are.

    Raises:
        ValueError: ``x`` has another number of dimensions.
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
    """
    check_dims('sample_tokens', 'N C H W', student=student, teacher=teacher)
    if len(student) != len(teacher) or num_tokens < 1:
        raise ValueError(
            f'sample_tokens: expected maps of the same images and num_tokens >= 1 but got {tuple(student.shape)}, '
            f'{tuple(teacher.shape)} and {num_tokens}; feed both networks the same images'
        )
    size = tuple(min(sizes) for sizes in zip(student.shape[2:], teacher.shape[2:], strict=True))
    num_images, num_positions = len(student), size[0] * size[1]
    # Where the largest of random numbers are is a draw without replacement, one for each image.
    lots = torch.rand(num_images, num_positions, generator=generator, device=generator.device)
    chosen_NT = lots.topk(min(num_tokens, num_positions)).indices
    student, teacher = (_rows(adaptive_avg_pool2d(x, size), chosen_NT.to(x.device)) for x in (student, teacher))
    return student, teacher


def _rows(x_NCHW: Tensor, chosen_NT: Tensor) -> Tensor:
    index_NCT = chosen_NT[:, None].expand(-1, x_NCHW.shape[1], -1)
    return x_NCHW.flatten(2).gather(2, index_NCT).transpose(1, 2).flatten(0, 1)
