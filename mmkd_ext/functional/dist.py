"""Relations between softened predictions (DIST): between the classes of a sample, and between the samples of a class.

Shape suffixes: M rows (samples, or positions of maps), C classes.
"""

import torch
from torch import Tensor
from torch.nn import functional

from mmkd_ext.ops.arguments import check_not_negative, check_positive, full_precision
from mmkd_ext.ops.distributed import joint_count, num_processes, sum_with_grad
from mmkd_ext.ops.logits import check_same_classes, logit_rows, loss_of_gradient, standardized

# Deviations of probabilities from their mean that are shorter have no direction.
_SHORTEST = 1e-6


@full_precision
def prediction_correlation(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    multi_label: bool = False,
    standardize: bool = False,
    gather: bool = False,
) -> Tensor:
    r"""How badly the student's predictions correlate with the teacher's, along classes and along samples.

    .. math:: \ell = \tau^2 \Big( \beta \Big( 1 - \frac{1}{M} \sum_i \rho(p_{i:}, q_{i:}) \Big)
        + \gamma \Big( 1 - \frac{1}{C} \sum_c \rho(p_{:c}, q_{:c}) \Big) \Big), \qquad
        p = \mathrm{softmax}(t / \tau), \quad q = \mathrm{softmax}(s / \tau)

    with Pearson's correlation :math:`\rho`. The first term (*inter-class*) relates the classes of each sample, the
    second (*intra-class*) the samples of each class. Blind to a scale and an offset of each row and of each column of
    predictions: the order and the relative size matter, not the match that KL demands. Each term is at most
    :math:`2 \tau^2`.

    From "Knowledge Distillation from A Stronger Teacher", Huang et al., NeurIPS 2022, arXiv 2205.10536. Equal to the
    official code (hunto/DIST_KD) but for what it adds to the product of lengths, :math:`10^{-8}`: at uniform
    predictions that multiplies the gradient by :math:`10^8`. Here deviations shorter than 1e-6 count as none: their
    correlation is 0 and their gradient bounded.

    Value and gradient are computed together in closed form.

    Args:
        student: Logits :math:`s`, shape (N, C), or of maps (N, C, H, W), each position of which is a sample.
        teacher: Logits :math:`t` of the same shape; no gradient flows to them.
        beta: Weight of the inter-class term; 1 in the official code, 2 in common re-implementations.
        gamma: Weight of the intra-class term; likewise.
        temperature: :math:`\tau`; 1 in the official code, 4 in common use on CIFAR-100.
        multi_label: Predictions are a sigmoid of each logit: classes do not exclude each other, as in detectors.
        standardize: First give the logits of each sample mean 0 and standard deviation 1
            (:func:`~mmkd_ext.ops.logits.standardized`).
        gather: The samples are those of all processes, in any number on each. Samples stay where they are: what
            travels is five sums per class.

    Returns:
        Loss, a scalar. Of a single sample the intra-class term is 0, and all of it for none.

    Raises:
        TypeError: If a setting is not a number.
        ValueError: If shapes differ, a setting is out of range, or a value is NaN
            (:func:`~mmkd_ext.ops.logits.check_same_classes`).

    Example:
        >>> x = torch.tensor([[1.0, 2.0, 4.0], [3.0, 0.0, 1.0]])
        >>> prediction_correlation(x + 5, x) < 1e-6  # blind to a shift of a sample's logits
        tensor(True)
    """
    caller = 'prediction_correlation'
    check_positive(caller, temperature=temperature)
    check_not_negative(caller, beta=beta, gamma=gamma)
    check_same_classes(caller, student, teacher)
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    student, teacher = (logit_rows(x).to(dtype) for x in (student, teacher.detach()))
    if standardize:
        student, teacher = standardized(student), standardized(teacher)
    with torch.no_grad():
        q_MC, p_MC = (_prediction(x, temperature, multi_label) for x in (student, teacher))
        rows = joint_count(len(q_MC), q_MC) if gather else max(len(q_MC), 1)
        # Each term is through with what it has made before the next begins, and writes its slope there.
        scale = temperature**2
        inter, slope_MC = _along_classes(p_MC, q_MC, rows)
        slope_MC.mul_(scale * beta)
        intra = _along_samples(p_MC, q_MC, rows, gather, slope_MC, scale * gamma)
        # Every process knows the second term, so each takes an even part of it.
        part = num_processes() if gather else 1
        loss = scale * (beta * inter + gamma / part * intra)
        gradient = _through_prediction(q_MC, slope_MC, multi_label).div_(temperature)
    loss = loss_of_gradient(caller, student, loss, gradient)
    return sum_with_grad(loss) if gather else loss


def _prediction(x_MC: Tensor, temperature: float, multi_label: bool) -> Tensor:
    x_MC = x_MC / temperature
    return x_MC.sigmoid_() if multi_label else functional.softmax(x_MC, dim=1)


def _through_prediction(q_MC: Tensor, slope_MC: Tensor, multi_label: bool) -> Tensor:
    if multi_label:
        return slope_MC.mul_(q_MC).mul_(1 - q_MC)
    mean_M1 = torch.linalg.vecdot(slope_MC, q_MC)[:, None]
    return slope_MC.sub_(mean_M1).mul_(q_MC)


def _along_classes(p_MC: Tensor, q_MC: Tensor, rows: int | Tensor) -> tuple[Tensor, Tensor]:
    """This process's part of the inter-class term, and its slope in the student's predictions."""
    mean_M1 = p_MC.mean(dim=1, keepdim=True)
    p_MC.sub_(mean_M1)
    gap_MC = q_MC - q_MC.mean(dim=1, keepdim=True)
    sums_M = (torch.linalg.vecdot(p_MC, p_MC), torch.linalg.vecdot(gap_MC, gap_MC), torch.linalg.vecdot(p_MC, gap_MC))
    rho_M, of_p_M, of_q_M = _correlation(*sums_M)
    # Deviations sum to zero, so a mean taken from the slope would change nothing.
    slope_MC = gap_MC.mul_(of_q_M[:, None] / rows).addcmul_(p_MC, of_p_M[:, None] / rows, value=-1)
    p_MC.add_(mean_M1)
    return (1 - rho_M).sum() / rows, slope_MC


def _along_samples(
    p_MC: Tensor, q_MC: Tensor, rows: int | Tensor, gather: bool, slope_MC: Tensor, weight: float
) -> Tensor:
    """The intra-class term; its slope in the student's predictions of this process is added. Overwrites the first."""
    if (not gather and len(q_MC) < 2) or q_MC.shape[1] == 0:
        return q_MC.new_zeros(())
    sum_PC = torch.stack([p_MC.sum(dim=0), q_MC.sum(dim=0)])
    mean_PC = (sum_with_grad(sum_PC) if gather else sum_PC) / rows
    p_MC.sub_(mean_PC[0])
    gap_MC = q_MC - mean_PC[1]
    sums_PC = torch.stack(
        [
            torch.linalg.vector_norm(p_MC, dim=0).square(),
            torch.linalg.vector_norm(gap_MC, dim=0).square(),
            torch.linalg.vecdot(p_MC, gap_MC, dim=0),
        ]
    )
    rho_C, of_p_C, of_q_C = _correlation(*(sum_with_grad(sums_PC) if gather else sums_PC))
    weight = weight / q_MC.shape[1]
    slope_MC.addcmul_(gap_MC, of_q_C, value=weight).addcmul_(p_MC, of_p_C, value=-weight)
    loss = (1 - rho_C).mean()
    return torch.where(rows > 1, loss, 0) if isinstance(rows, Tensor) else loss


def _correlation(square_p: Tensor, square_q: Tensor, product: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Correlations, and what deviations of p, and minus those of q, are multiplied by in their slopes."""
    length_p, length_q = square_p.sqrt(), square_q.sqrt()
    varies = (length_p > _SHORTEST) & (length_q > _SHORTEST)
    inverse = torch.where(varies, 1 / (length_p * length_q), 0)
    rho = (product * inverse).clamp(-1, 1)
    return rho, inverse, torch.where(varies, rho / square_q, 0)
