"""Novel class discovery by swapped prediction between views (UNO).

Shape suffixes: V views, the L large ones first; H heads; B batch rows; C = K + N classes, known then novel.
"""

from torch import Tensor

from mmkd_ext.functional.checks import check_dims, check_positive
from mmkd_ext.functional.gather import joint_count, sum_with_grad
from mmkd_ext.functional.sharing import full_precision

__all__ = ['swapped_prediction']


@full_precision
def swapped_prediction(
    logits: Tensor, targets: Tensor, *, num_large: int, temperature: float = 0.1, gather: bool = False
) -> Tensor:
    r"""Cross-entropy of each view's prediction with the targets of every *other* large view.

    .. math:: \ell_h = \frac{1}{L (V - 1) B} \sum_{v \le L} \sum_{o \ne v} \sum_b
        -\langle t_{vhb}, \log \mathrm{softmax}(z_{ohb} / \tau) \rangle

    Small views predict but give no targets; with 2 large and 2 small views the views thus weigh 1/6, 1/6, 2/6, 2/6.
    The mean runs over labelled and unlabelled rows together.

    From "A Unified Objective for Novel Class Discovery", Fini et al., ICCV 2021, arXiv 2108.08536, Eq. 6; weights as in
    the official code.

    Args:
        logits: Cosine logits :math:`z` of all views, shape (V, H, B, C).
        targets: Distributions over classes :math:`t`, taken as constants: one-hot for labelled rows, Sinkhorn
            assignments for others. Shape (V, H, B, C); those of small views are not read.
        num_large: Large views :math:`L`, at least 1.
        temperature: Softmax temperature :math:`\tau`.
        gather: Take the mean over the rows of all processes (:func:`~mmkd_ext.functional.sum_with_grad`); B may then
            differ between them.

    Returns:
        Loss of each head, shape (H,); 0 for an empty batch.

    Raises:
        ValueError: If shapes differ, there is only one view, or a setting is out of range.
    """
    who = 'swapped_prediction'
    check_positive(who, temperature=temperature)
    check_dims(who, 'V H B C', logits=logits, targets=targets)
    if logits.shape != targets.shape:
        raise ValueError(
            f'{who}: expected targets of the shape of logits {tuple(logits.shape)} but got {tuple(targets.shape)}; '
            f'give small views zero targets'
        )
    num_views, _, batch_size, _ = logits.shape
    if num_views < 2 or not 1 <= num_large <= num_views:
        raise ValueError(
            f'{who}: expected V >= 2 views and 1 <= num_large <= V but got V={num_views}, num_large={num_large}; '
            f'check the multi-view transform'
        )

    log_prob_VHBC = (logits / temperature).log_softmax(dim=-1)
    others_LHBC = log_prob_VHBC.sum(dim=0) - log_prob_VHBC[:num_large]
    loss_H = -(targets[:num_large].detach() * others_LHBC).sum(dim=(0, 2, 3))
    num_terms = num_large * (num_views - 1)
    if gather:
        return sum_with_grad(loss_H) / (num_terms * joint_count(batch_size, loss_H))
    return loss_H / (num_terms * max(batch_size, 1))
