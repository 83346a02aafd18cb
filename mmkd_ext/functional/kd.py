"""Knowledge distillation by softened predictions.

Shape suffixes: N samples, C classes.
"""

from torch import Tensor
from torch.nn import functional

from mmkd_ext.ops.arguments import check_dims, check_pair, check_positive, full_precision
from mmkd_ext.ops.logits import standardized

__all__ = ['soft_target']


@full_precision
def soft_target(student: Tensor, teacher: Tensor, *, temperature: float, standardize: bool = False) -> Tensor:
    r"""Divergence of the student's softened prediction from the teacher's.

    .. math:: \ell = \frac{T^2}{N} \sum_n \mathrm{KL}(p_n \| q_n), \qquad
        p = \mathrm{softmax}(t / T), \quad q = \mathrm{softmax}(s / T)

    :math:`T^2` keeps the size of the gradient when :math:`T` changes.

    From "Distilling the Knowledge in a Neural Network", Hinton et al., 2015, arXiv 1503.02531, Section 2; KL instead of
    cross-entropy, so that the minimum is zero.

    Args:
        student: Logits :math:`s`, shape (N, C).
        teacher: Logits :math:`t`, shape (N, C); no gradient flows to them.
        temperature: :math:`T`; the paper tries 1 to 20. Of standardised logits 2 is usual.
        standardize: First give the logits of each sample mean 0 and standard deviation 1
            (:func:`~mmkd_ext.ops.logits.standardized`), so that the student need not reach the teacher's range: "Logit
            Standardization in Knowledge Distillation", Sun et al., CVPR 2024, arXiv 2403.01427. The deviation is the
            paper's, over C; the official code divides by C - 1, which is the same as :math:`T \sqrt{C / (C - 1)}` and
            :math:`1 - 1 / C` of the weight here.

    Returns:
        Loss, a scalar; 0 for an empty batch.

    Raises:
        ValueError: If shapes differ, ``temperature`` is not positive, or a value is NaN (:func:`check_pair`).

    Example:
        >>> x = torch.tensor([[1.0, 2.0, 3.0]])
        >>> soft_target(x + 5, x, temperature=4.0).abs() < 1e-5  # blind to a shift of all logits
        tensor(True)
    """
    caller = 'soft_target'
    check_positive(caller, temperature=temperature)
    check_dims(caller, 'N C', student=student, teacher=teacher)
    check_pair(caller, student, teacher)
    if student.shape != teacher.shape:
        raise ValueError(
            f'{caller}: expected logits over the same classes but got student {tuple(student.shape)}, '
            f'teacher {tuple(teacher.shape)}; train both networks on the same classes'
        )

    teacher = teacher.detach()
    if standardize:
        student, teacher = standardized(student), standardized(teacher)
    log_p_NC = (teacher / temperature).log_softmax(dim=-1)
    log_q_NC = (student / temperature).log_softmax(dim=-1)
    divergence = functional.kl_div(log_q_NC, log_p_NC, reduction='sum', log_target=True)
    return divergence * temperature**2 / max(len(student), 1)
