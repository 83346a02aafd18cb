"""Direction of the difference between two networks' similarities of samples (SKD).

Shape suffixes: N samples, C classes.
"""

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_dims, check_positive, full_precision
from mmkd_ext.ops.gram import GramSlope, directions, loss_of_gram
from mmkd_ext.ops.logits import check_same_classes


@full_precision
def similarity_direction(student: Tensor, teacher: Tensor, *, tikhonov: float = 0.1) -> Tensor:
    r"""Length of the difference of two similarity matrices, measured in the spread of its own rows.

    .. math:: \ell = \frac{1}{N} \sum_i \sqrt{\Delta_i^\top \big( \mathrm{cov}(\Delta) + \lambda I \big)^{-1} \Delta_i},
        \qquad \Delta = \frac{1}{C} \big( \hat S \hat S^\top - \hat T \hat T^\top \big)

    with :math:`\hat S, \hat T` the logits, each sample at length 1, and the covariance, N x N, of the columns of
    :math:`\Delta` over its rows: a Mahalanobis length. Blind to a rotation of the logits and to the length of each
    sample's. The root makes the slope bounded but not small: it does not fade as the student gets near the teacher.

    The direction term of "Streamlined Knowledge Distillation", CVPR 2026, as its public code computes it
    (HyunJunSik/StreamLined; the paper's text was not at hand). That code then multiplies the term by a mask of classes
    below the median confidence and takes the mean; as the term is a number, the mask is a factor of about one half.

    Value and slope are computed in closed form, with N x N matrices; their inverse costs :math:`N^3`.

    Args:
        student: Logits :math:`s`, shape (N, C).
        teacher: Logits :math:`t`, shape (N, C); no gradient flows to them.
        tikhonov: :math:`\lambda`, which keeps the inverse finite; 0.1 in the code. The covariance itself is at most
            :math:`4 / C^2` an entry, so with many classes :math:`\lambda` rules.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than two samples.

    Raises:
        TypeError: If ``tikhonov`` is not a number.
        ValueError: If shapes differ, ``tikhonov`` is not positive, or a value is NaN
            (:func:`~mmkd_ext.ops.logits.check_same_classes`).

    Example:
        >>> x = torch.tensor([[1.0, 2.0, 4.0], [3.0, 0.0, 1.0]])
        >>> similarity_direction(2 * x, x) < 1e-5  # blind to the length of each sample's logits
        tensor(True)
    """
    caller = 'similarity_direction'
    check_positive(caller, tikhonov=tikhonov)
    check_dims(caller, 'N C', student=student, teacher=teacher)
    check_same_classes(caller, student, teacher)
    num_samples, num_classes = student.shape
    if num_samples < 2 or num_classes == 0:
        return student[:0].sum()
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    student = student.to(dtype)
    with torch.no_grad():
        turned = directions(student)
        student_NC, teacher_NC = turned.unit_XD, directions(teacher.to(dtype)).unit_XD
        gap_NN = torch.addmm(teacher_NC @ teacher_NC.T, student_NC, student_NC.T, beta=-1).div_(num_classes)
        centred_NN = gap_NN - gap_NN.mean(dim=0)
        spread_NN = (centred_NN.T @ centred_NN).div_(num_samples - 1)
        spread_NN.diagonal().add_(tikhonov)
        # Always positive definite, so there is nothing to look at, for which a GPU would have to wait.
        root_NN, _ = torch.linalg.cholesky_ex(spread_NN)
        solved_NN = torch.cholesky_solve(gap_NN, root_NN)  # of the symmetric gap: its columns are its rows
        length_N = torch.linalg.vecdot(gap_NN, solved_NN.T).clamp(min=0).sqrt()
        loss = length_N.mean()
        if not student.requires_grad:
            return loss
        inverse_N = torch.where(length_N > 0, 1 / (num_samples * length_N), 0.0)
        weighted_NN = (solved_NN * inverse_N).T
        # The gap is in each row, and in the covariance that all rows are measured by.
        slope_NN = weighted_NN.addmm(centred_NN, solved_NN @ weighted_NN, alpha=-1 / (num_samples - 1)).div_(
            num_classes
        )
    return loss_of_gram(caller, student, loss, GramSlope(student_NC, slope_NN, directions=turned))
