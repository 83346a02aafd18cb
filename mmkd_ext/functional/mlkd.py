"""Correlations of softened predictions between samples and between classes (MLKD).

Shape suffixes: N samples, C classes.
"""

import torch
from torch import Tensor
from torch.nn import functional

from mmkd_ext.ops.arguments import check_dims, check_not_negative, check_positive, full_precision
from mmkd_ext.ops.logits import check_same_classes, loss_of_gradient


@full_precision
def batch_class_correlation(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 4.0,
    batch_weight: float = 1.0,
    class_weight: float = 1.0,
) -> Tensor:
    r"""How differently the predictions of two networks overlap, between samples and between classes.

    .. math:: \ell = \frac{\alpha}{N} \lVert P P^\top - Q Q^\top \rVert_F^2
        + \frac{\beta}{C} \lVert P^\top P - Q^\top Q \rVert_F^2, \qquad
        P = \mathrm{softmax}(t / \tau), \quad Q = \mathrm{softmax}(s / \tau)

    The batch and the class level of "Multi-level Logit Distillation", Jin et al., CVPR 2023; its third level, each
    sample for itself, is :func:`~mmkd_ext.functional.soft_target`. Blind to an offset of a sample's logits. The batch
    term is at most :math:`2 \alpha N`, the class term at most :math:`2 \beta N^2 / C`, so weights belong to a batch
    size.

    Published code (read in the copy of HyunJunSik/StreamLined) adds up several temperatures, each a term here, and
    multiplies both terms by masks of confident samples and classes. As the terms are already sums there, a mask is no
    more than a factor: the share of samples, or classes, at or below the median, about one half.

    Value and gradient are computed together in closed form.

    Args:
        student: Logits :math:`s`, shape (N, C).
        teacher: Logits :math:`t`, shape (N, C); no gradient flows to them.
        temperature: :math:`\tau`; published code adds the losses of 4, 3 and 2, or of 2 to 6.
        batch_weight: :math:`\alpha`.
        class_weight: :math:`\beta`.

    Returns:
        Loss, a scalar; a differentiable 0 for an empty batch.

    Raises:
        TypeError: If a setting is not a number.
        ValueError: If shapes differ, a setting is out of range, or a value is NaN
            (:func:`~mmkd_ext.ops.logits.check_same_classes`).

    Example:
        >>> x = torch.tensor([[1.0, 2.0, 4.0], [3.0, 0.0, 1.0]])
        >>> batch_class_correlation(x + 5, x) < 1e-6  # blind to a shift of a sample's logits
        tensor(True)
    """
    caller = 'batch_class_correlation'
    check_positive(caller, temperature=temperature)
    check_not_negative(caller, batch_weight=batch_weight, class_weight=class_weight)
    check_dims(caller, 'N C', student=student, teacher=teacher)
    check_same_classes(caller, student, teacher)
    if student.numel() == 0:
        return student.sum()
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    student = student.to(dtype)
    num_samples, num_classes = student.shape
    with torch.no_grad():
        p_NC, q_NC = (functional.softmax(x.to(dtype) / temperature, dim=1) for x in (teacher, student))
        gap_NN = torch.addmm(p_NC @ p_NC.T, q_NC, q_NC.T, beta=-1)
        gap_CC = torch.addmm(p_NC.T @ p_NC, q_NC.T, q_NC, beta=-1)
        loss = batch_weight / num_samples * torch.linalg.vector_norm(gap_NN, dim=1).square().sum()
        loss = loss + class_weight / num_classes * torch.linalg.vector_norm(gap_CC, dim=1).square().sum()
        slope_NC = torch.addmm(
            gap_NN @ q_NC, q_NC, gap_CC, beta=4 * batch_weight / num_samples, alpha=4 * class_weight / num_classes
        )
        mean_N1 = torch.linalg.vecdot(slope_NC, q_NC)[:, None]
        gradient_NC = slope_NC.sub_(mean_N1).mul_(q_NC).div_(temperature)
    return loss_of_gradient(caller, student, loss, gradient_NC)
