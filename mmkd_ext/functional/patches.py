"""Relations between the patches of one image: Gram anchoring, softmaxed similarities, alignment of kernels (PaKa).

Shape suffixes: N images, L patches, D dims, C channels, H x W positions of a map, X any leading dimensions.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mmkd_ext.ops.arguments import check_choice, check_pair, check_positive, refuse_second_derivative
from mmkd_ext.ops.gram import Directions, directions, divisors

_RELATIONS = ('gram', 'softmax', 'cka')
_NEGATIVES = ('keep', 'clip', 'clip-shared')

Prefix = int | tuple[int, int]


def patch_relation(
    student: Tensor,
    teacher: Tensor,
    *,
    relation: str = 'gram',
    temperature: float = 0.07,
    negatives: str = 'keep',
    num_prefix: Prefix = 0,
) -> Tensor:
    r"""How differently two networks relate the patches of each image; images are not compared with each other.

    With :math:`S, T` the patches of an image, one a row, and :math:`\hat S, \hat T` at length 1, the mean over images
    of

    - ``'gram'``: :math:`\frac{1}{L^2} \lVert \hat S \hat S^\top - \hat T \hat T^\top \rVert_F^2`, the Gram anchoring of
      "DINOv3", Simeoni et al., 2025, arXiv 2508.10104. The paper prints the sum; its code takes this mean, and has two
      options that drop negative cosines, see ``negatives``;
    - ``'softmax'``: :math:`\frac{1}{L} \sum_i \mathrm{KL}\big( \mathrm{softmax}(\hat T \hat T_i / \tau) \,\|\,
      \mathrm{softmax}(\hat S \hat S_i / \tau) \big)`, the local term of LightlyTrain's distillation;
    - ``'cka'``: :math:`1 - \frac{\langle K, M \rangle}{\lVert K \rVert_F \lVert M \rVert_F}` with the centred kernels
      :math:`K = H S S^\top H`, :math:`M = H T T^\top H` of raw patches, from "Patch-level Kernel Alignment for
      Self-Supervised Dense Representation Learning", Yeo et al., 2025, arXiv 2509.05606.

    All are blind to a rotation of the features; ``'gram'`` and ``'softmax'`` also to the length of each patch,
    ``'cka'`` to one shift and one scale for all patches of an image. Widths may differ, and no connector is needed.

    Networks of different grids are read at the coarser one, to which the finer is averaged. A patch shorter than 1e-6
    has no direction. An image whose patches are all alike in one network has a CKA of 0, and no gradient.

    Images are computed one by one, value and slope in closed form: what is kept for backward is half of an L x L
    matrix an image, or its gradient where L exceeds D, and no normalised copy of the batch. CKA of maps with more
    positions than dims goes through D x D products.

    Args:
        student: Tokens, shape (N, P + L, D), or a map (N, D, H, W), of any floating dtype.
        teacher: Tokens or a map of the same images, of any width; no gradient flows to them.
        relation: ``'gram'``, ``'softmax'`` or ``'cka'``.
        temperature: :math:`\tau` of ``'softmax'``; 0.07 in LightlyTrain.
        negatives: What ``'gram'`` does with negative cosines: ``'keep'`` them as the paper; ``'clip'`` them to 0 in
            both networks, the code's ``remove_neg``; ``'clip-shared'`` those of the teacher, and of the student where
            the teacher's is negative too, the code's ``remove_only_teacher_neg``.
        num_prefix: Tokens P before the patches (class token, registers), left out: one number for both networks, or
            (student, teacher). Maps have none.

    Returns:
        Loss, a scalar, float32 or float64; a differentiable 0 without images or with fewer than two patches.

    Raises:
        TypeError: If ``temperature`` is not a number.
        ValueError: If a setting is unknown or out of range, shapes do not fit, or a value is NaN
            (:func:`~mmkd_ext.ops.arguments.check_pair`).

    Example:
        >>> right = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])  # one image, two patches at a right angle
        >>> equal = torch.tensor([[[1.0], [1.0]]])  # of another width, and alike
        >>> patch_relation(right, equal)  # a cosine of 0 instead of 1, at two of four places
        tensor(0.5000)
    """
    caller = 'patch_relation'
    check_patch_settings(caller, relation, temperature, negatives, num_prefix)
    check_pair(caller, student, teacher)
    student, teacher = _on_one_grid(caller, student, teacher.detach(), num_prefix)
    if len(student) == 0 or student.shape[1] < 2:
        return student[:0].float().sum() if student.dtype in (torch.float16, torch.bfloat16) else student[:0].sum()
    return _PatchLoss.apply(student, teacher, _Relation(relation, temperature, negatives), caller)


def check_patch_settings(caller: str, relation: str, temperature: float, negatives: str, num_prefix: Prefix) -> None:
    """Refuse settings that :func:`patch_relation` cannot use; modules call it when they are built.

    Args:
        caller: Function or class that speaks in the error.
        relation: ``'gram'``, ``'softmax'`` or ``'cka'``.
        temperature: Positive.
        negatives: ``'keep'``, ``'clip'`` or ``'clip-shared'``.
        num_prefix: An integer >= 0, or two.

    Raises:
        TypeError: If ``temperature`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """
    check_choice(caller, _RELATIONS, relation=relation)
    check_choice(caller, _NEGATIVES, negatives=negatives)
    check_positive(caller, temperature=temperature)
    numbers = num_prefix if isinstance(num_prefix, (tuple, list)) else (num_prefix, num_prefix)
    if len(numbers) != 2 or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError(
            f'{caller}: expected num_prefix >= 0, or one for student and teacher each, but got {num_prefix!r}; '
            f'count the class token and the registers'
        )


# --------------------------------------------------------------------------------------------------
# One grid.


def _on_one_grid(caller: str, student: Tensor, teacher: Tensor, num_prefix: Prefix) -> tuple[Tensor, Tensor]:
    """Return the patches of both, shapes (N, L, D) and (N, L, D')."""
    prefixes = num_prefix if isinstance(num_prefix, (tuple, list)) else (num_prefix, num_prefix)
    for name, x in (('student', student), ('teacher', teacher)):
        if x.ndim not in (3, 4):
            raise ValueError(
                f'{caller}: expected {name} of shape (N, L, D) or (N, C, H, W) but got {tuple(x.shape)}; '
                f'tap a layer that still has patches'
            )
    # Patches that are counted alike are taken to lie alike: nothing has to be known of the grid.
    student, teacher = (
        x[:, prefix:] if x.ndim == 3 else x for x, prefix in zip((student, teacher), prefixes, strict=True)
    )
    counts = [x.shape[1] if x.ndim == 3 else x.shape[2] * x.shape[3] for x in (student, teacher)]
    maps = [x for x in (student, teacher) if x.ndim == 4]
    if counts[0] != counts[1] or (len(maps) == 2 and maps[0].shape[2:] != maps[1].shape[2:]):
        student, teacher = (_as_map(caller, x) for x in (student, teacher))
        size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
        student, teacher = (_pooled(x, size) for x in (student, teacher))
    student, teacher = (x.flatten(2).transpose(1, 2) if x.ndim == 4 else x for x in (student, teacher))
    return student, teacher


def _as_map(caller: str, x: Tensor) -> Tensor:
    if x.ndim == 4:
        return x
    side = math.isqrt(x.shape[1])
    if side**2 != x.shape[1]:
        raise ValueError(
            f'{caller}: expected tokens of a square grid, as those of the two networks differ in number, but got '
            f'{x.shape[1]}; set num_prefix to the tokens that are no patches, or give a map (N, C, H, W)'
        )
    return x.transpose(1, 2).unflatten(2, (side, side))


def _pooled(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[2:] == size:
        return x
    return adaptive_avg_pool2d(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, size)


# --------------------------------------------------------------------------------------------------
# One image: its loss, and how it changes with products of its patches.


class _Centred(NamedTuple):
    """Patches around their mean, in units of the largest magnitude."""

    unit_XD: Tensor
    divisor: Tensor

    def through(self, gradient_XD: Tensor) -> Tensor:
        """Carry a gradient that sums to 0 over patches from these to the patches, in place."""
        return gradient_XD.div_(self.divisor)


def _centred(x_LD: Tensor) -> _Centred:
    size = x_LD.abs().amax()
    # Means of large values leave the dtype before they are divided.
    x_LD = x_LD / size.clamp(min=1)
    x_LD = x_LD.sub_(x_LD.mean(dim=0))
    spread = x_LD.abs().amax()
    # Below this, what is left of equal patches is the rounding error of their mean.
    varies = spread > 8 * torch.finfo(x_LD.dtype).eps * size.clamp(max=1)
    divisor = torch.where(varies, spread, 1.0)
    return _Centred(x_LD.div_(divisor).mul_(varies), divisor * size.clamp(min=1))


class _Relation(NamedTuple):
    """What is compared of each image."""

    relation: str
    temperature: float
    negatives: str

    def features(self, x_LD: Tensor) -> Directions | _Centred:
        """What products are taken of."""
        return _centred(x_LD) if self.relation == 'cka' else directions(x_LD)

    def products(self, student_LD: Tensor, teacher_LD: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the sum of its slope in the products and its transposed, shape (L, L)."""
        function = {'gram': self._gram, 'softmax': self._softmax, 'cka': _kernels}[self.relation]
        return function(student_LD @ student_LD.T, teacher_LD @ teacher_LD.T)

    def _gram(self, student_LL: Tensor, teacher_LL: Tensor) -> tuple[Tensor, Tensor]:
        if self.negatives == 'clip':
            kept_LL = student_LL > 0
            gap_LL = student_LL.clamp_(min=0).sub_(teacher_LL.clamp_(min=0))
        elif self.negatives == 'clip-shared':
            kept_LL = (student_LL >= 0) | (teacher_LL >= 0)
            gap_LL = student_LL.mul_(kept_LL).sub_(teacher_LL.clamp_(min=0))
        else:
            kept_LL = None
            gap_LL = student_LL.sub_(teacher_LL)
        loss = torch.linalg.vector_norm(gap_LL, dim=1).square().sum() / gap_LL.numel()
        gap_LL.mul_(4 / gap_LL.numel())
        return loss, gap_LL if kept_LL is None else gap_LL.mul_(kept_LL)

    def _softmax(self, student_LL: Tensor, teacher_LL: Tensor) -> tuple[Tensor, Tensor]:
        log_q_LL = student_LL.div_(self.temperature).log_softmax(dim=1)
        log_p_LL = teacher_LL.div_(self.temperature).log_softmax(dim=1)
        p_LL = log_p_LL.exp()
        loss = torch.linalg.vecdot(p_LL, log_p_LL.sub_(log_q_LL)).sum().clamp(min=0) / len(p_LL)
        slope_LL = log_q_LL.exp_().sub_(p_LL).div_(self.temperature * len(p_LL))
        return loss, slope_LL.T.clone(memory_format=torch.contiguous_format).add_(slope_LL)

    def gradient(self, student: Directions | _Centred, teacher_LD: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and its gradient in the patches, shape (L, D)."""
        student_LD = student.unit_XD
        if self.relation == 'cka' and len(student_LD) > max(student_LD.shape[1], teacher_LD.shape[1]):
            loss, gradient_LD = _covariances(student_LD, teacher_LD)
        else:
            loss, slope_LL = self.products(student_LD, teacher_LD)
            gradient_LD = slope_LL @ student_LD
        return loss, student.through(gradient_LD)

    def pull(self, pull_LL: Tensor, student_LD: Tensor, out_LD: Tensor) -> None:
        """Write the gradient in the patches, of what :meth:`products` has found."""
        if self.relation == 'cka':
            student = self.features(student_LD)
            out_LD.copy_(student.through(pull_LL @ student.unit_XD))
            return
        # Columns are divided, not patches, which may be many times as large.
        divisor_L1, turns_L1 = divisors(student_LD)
        pull_LL.div_(divisor_L1.T)
        same = out_LD.dtype == student_LD.dtype
        gradient_LD = torch.mm(pull_LL, student_LD, out=out_LD) if same else pull_LL @ student_LD
        along_L1 = torch.linalg.vecdot(gradient_LD, student_LD)[:, None].mul_(turns_L1)
        along_L1.div_(divisor_L1).div_(divisor_L1)  # its square may leave the dtype
        gradient_LD.addcmul_(along_L1, student_LD, value=-1).div_(divisor_L1)
        if not same:
            out_LD.copy_(gradient_LD)


def _kernels(student_LL: Tensor, teacher_LL: Tensor) -> tuple[Tensor, Tensor]:
    product = torch.linalg.vecdot(student_LL, teacher_LL).sum()
    square = torch.linalg.vector_norm(student_LL, dim=1).square().sum()
    cka, to_teacher, to_student = _alignment(
        product, square, torch.linalg.vector_norm(teacher_LL, dim=1).square().sum()
    )
    return 1 - cka, teacher_LL.mul_(-2 * to_teacher).add_(student_LL.mul_(2 * to_student))


def _covariances(student_LD: Tensor, teacher_LD: Tensor) -> tuple[Tensor, Tensor]:
    """The same from products of D x D."""
    cross_ED, own_DD = teacher_LD.T @ student_LD, student_LD.T @ student_LD
    sums = [torch.linalg.vector_norm(x, dim=1).square().sum() for x in (cross_ED, own_DD, teacher_LD.T @ teacher_LD)]
    cka, to_teacher, to_student = _alignment(*sums)
    gradient_LD = student_LD @ own_DD.mul_(2 * to_student)
    return 1 - cka, gradient_LD.addmm_(teacher_LD, cross_ED.mul_(-2 * to_teacher))


def _alignment(product: Tensor, square_s: Tensor, square_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """CKA, and what the teacher's kernel, and minus the student's, are multiplied by in its slope."""
    varies = (square_s > 0) & (square_t > 0)
    inverse = torch.where(varies, 1 / (square_s.sqrt() * square_t.sqrt()), 0.0)
    cka = (product * inverse).clamp(max=1)
    return cka, inverse, torch.where(varies, cka / square_s, 0.0)


class _PatchLoss(torch.autograd.Function):
    """Image by image, outside autocast; half precision is upcast one image at a time.

    Of each image the upper half of the symmetric matrix is kept that the patches are multiplied by in backward; where
    that would be larger than the gradient, the gradient.
    """

    @staticmethod
    def forward(ctx: Any, student_NLD: Tensor, teacher_NLD: Tensor, relation: _Relation, caller: str) -> Tensor:
        dtype = torch.promote_types(torch.promote_types(student_NLD.dtype, teacher_NLD.dtype), torch.float32)
        num_images, num_patches, num_dims = student_NLD.shape
        by_products = num_patches <= num_dims
        upper_U = kept_NX = None
        if ctx.needs_input_grad[0] and by_products:
            row_U, column_U = torch.triu_indices(num_patches, num_patches, device=student_NLD.device)
            upper_U = row_U.mul_(num_patches).add_(column_U)
            kept_NX = student_NLD.new_empty(num_images, len(upper_U), dtype=dtype)
        elif ctx.needs_input_grad[0]:
            # In this dtype: what a gradient scaler multiplies by has not been seen yet.
            kept_NX = torch.empty_like(student_NLD, dtype=dtype)
        losses = []
        with torch.autocast(device_type=student_NLD.device.type, enabled=False):
            for image in range(num_images):
                teacher_LD = relation.features(teacher_NLD[image].to(dtype)).unit_XD
                student = relation.features(student_NLD[image].to(dtype))
                if by_products:
                    loss, kept_LX = relation.products(student.unit_XD, teacher_LD)
                else:
                    loss, kept_LX = relation.gradient(student, teacher_LD)
                losses.append(loss)
                if kept_NX is not None:
                    kept_LX.div_(num_images)
                    kept_NX[image] = kept_LX if upper_U is None else kept_LX.flatten().index_select(0, upper_U)
        ctx.settings = relation, student_NLD.dtype, caller
        ctx.save_for_backward(student_NLD if by_products else None, kept_NX, upper_U)
        return torch.stack(losses).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        relation, dtype, caller = ctx.settings
        refuse_second_derivative(caller)
        student_NLD, kept_NX, upper_U = ctx.saved_tensors
        if student_NLD is None:
            return (kept_NX * grad).to(dtype), None, None, None
        gradient_NLD = torch.empty_like(student_NLD)
        num_patches = student_NLD.shape[1]
        with torch.autocast(device_type=student_NLD.device.type, enabled=False):
            for image in range(len(student_NLD)):
                pull_LL = _whole(kept_NX[image], upper_U, num_patches).mul_(grad)
                relation.pull(pull_LL, student_NLD[image].to(kept_NX.dtype), gradient_NLD[image])
        return gradient_NLD, None, None, None


def _whole(kept_U: Tensor, upper_U: Tensor, num_patches: int) -> Tensor:
    upper_LL = kept_U.new_zeros(num_patches**2).index_copy_(0, upper_U, kept_U).view(num_patches, num_patches)
    whole_LL = upper_LL + upper_LL.T
    whole_LL.diagonal().mul_(0.5)
    return whole_LL
