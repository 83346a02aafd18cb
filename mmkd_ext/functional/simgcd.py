"""The parametric objective of SimGCD: self-distillation between views, held apart by the entropy of the mean.

Shape suffixes: V views, B batch rows, C = K + N classes, known then novel.
"""

import math

from torch import Tensor

from mmkd_ext.ops.arguments import check_dims, check_positive, full_precision


@full_precision
def self_distillation(logits: Tensor, *, temperature: float = 0.1, teacher_temperature: float = 0.04) -> Tensor:
    r"""Cross-entropy of each view's prediction with the sharper prediction of every other view.

    .. math:: \ell = \frac{1}{V (V - 1) B} \sum_{v} \sum_{o \ne v} \sum_b
        -\langle \mathrm{softmax}(z_{vb} / \tau_t), \log \mathrm{softmax}(z_{ob} / \tau_s) \rangle

    Targets are constants. From "Parametric Classification for Generalized Category Discovery: A Baseline Study", Wen et
    al., ICCV 2023, arXiv 2211.11727, Sec. 4.2.

    Args:
        logits: Cosines over all classes, shape (V, B, C).
        temperature: :math:`\tau_s` of the predictions.
        teacher_temperature: :math:`\tau_t` of the targets; the paper lowers it from 0.07 to 0.04.

    Returns:
        Loss, a scalar >= 0; 0 for an empty batch.

    Raises:
        TypeError: If a temperature is not a number.
        ValueError: If there are fewer than two views, or a shape or temperature is out of range.

    Example:
        >>> self_distillation(torch.zeros(2, 4, 3))  # undecided between three classes: log 3
        tensor(1.0986)
    """
    check_positive('self_distillation', temperature=temperature, teacher_temperature=teacher_temperature)
    check_dims('self_distillation', 'V B C', logits=logits)
    num_views, batch_size, _ = logits.shape
    if num_views < 2:
        raise ValueError(
            f'self_distillation: expected V >= 2 views but got V={num_views}; check the multi-view transform'
        )
    targets_VBC = (logits.detach() / teacher_temperature).softmax(dim=-1)
    log_prob_VBC = (logits / temperature).log_softmax(dim=-1)
    others_VBC = log_prob_VBC.sum(dim=0) - log_prob_VBC
    return -(targets_VBC * others_VBC).sum() / (num_views * (num_views - 1) * max(batch_size, 1))


@full_precision
def mean_entropy_gap(logits: Tensor, *, temperature: float = 0.1) -> Tensor:
    r"""How far the mean prediction of a batch is from using all classes alike.

    .. math:: \log C - H(\bar p), \qquad \bar p = \frac{1}{V B} \sum_{v, b} \mathrm{softmax}(z_{vb} / \tau_s)

    the divergence of the mean prediction from the uniform one. To minimise it is to maximise the entropy of the mean,
    which keeps self-distillation from putting all images into a few classes. Source: see :func:`self_distillation`;
    the constant is that of the official code.

    Args:
        logits: Cosines over all classes, shape (V, B, C).
        temperature: :math:`\tau_s`.

    Returns:
        Scalar in [0, log C]; 0 for an empty batch.

    Raises:
        TypeError: If ``temperature`` is not a number.
        ValueError: If the shape or ``temperature`` is out of range.

    Example:
        >>> mean_entropy_gap(torch.zeros(2, 4, 3)).abs() < 1e-6  # all classes are used alike
        tensor(True)
    """
    check_positive('mean_entropy_gap', temperature=temperature)
    check_dims('mean_entropy_gap', 'V B C', logits=logits)
    log_prob_RC = (logits.flatten(0, 1) / temperature).log_softmax(dim=-1)
    if not len(log_prob_RC):
        return log_prob_RC.sum()
    log_mean_C = log_prob_RC.logsumexp(dim=0) - math.log(len(log_prob_RC))
    return (log_mean_C.exp() * (log_mean_C + math.log(log_prob_RC.shape[1]))).sum()
