"""Sinkhorn-Knopp: pseudo-labels that use all prototypes equally.

Shape suffixes: B samples, K prototypes; any leading dimensions (views, heads) are independent problems.
"""

import torch
from torch import Tensor

from mmkd_ext.functional.checks import check_positive, full_precision
from mmkd_ext.functional.gather import joint_count, log_share

__all__ = ['sinkhorn_knopp']


@full_precision
@torch.no_grad()
def sinkhorn_knopp(logits: Tensor, *, epsilon: float = 0.05, num_iters: int = 3, gather: bool = False) -> Tensor:
    r"""Assign samples to prototypes by entropic optimal transport with equal marginals.

    Looks for :math:`Q = \mathrm{diag}(u)\, e^{L / \epsilon}\, \mathrm{diag}(v)` whose samples all weigh the same and
    whose prototypes all receive :math:`B / K`, by scaling prototypes and samples in turn. It ends on the samples, so
    each row sums to one exactly, and the prototypes are balanced only as far as ``num_iters`` iterations go: after the
    usual three, by a few dozen percent.

    Equal to the official code wherever that is finite. The work is done on logarithms, so that nothing overflows; the
    first iteration runs in float64, because ``logits / epsilon`` rounded to float32 has already lost the differences
    that decide once logits exceed a few units.

    With ``gather`` the samples are those of all processes, in any number on each. Samples stay where they are: what
    travels is, once per iteration, the logarithm of what each prototype has received on a process, (..., K) numbers.

    From "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", Caron et al., NeurIPS 2020,
    arXiv 2006.09882, Eq. 3-5; used for class discovery by UNO (arXiv 2108.08536) and Cr-KD (arXiv 2307.09158).

    Args:
        logits: Similarities of samples and prototypes, usually cosines *before* division by the temperature.
            Shape (..., B, K), any floating dtype. B may be 0.
        epsilon: Weight of the entropy; smaller is harder. Cosines in [-1, 1] call for 0.05.
        num_iters: Pairs of scalings. With 0, only the total mass is scaled, to B.
        gather: Balance prototypes over the samples of all processes; all of them must call, also with B = 0.

    Returns:
        Assignments in [0, 1], shape (..., B, K), each row summing to one, without gradient. float64 for float64 input,
        float32 otherwise.

    Raises:
        ValueError: If ``logits`` has fewer than two dimensions, or a setting is out of range.
    """
    who = 'sinkhorn_knopp'
    check_positive(who, epsilon=epsilon)
    if num_iters < 0:
        raise ValueError(f'{who}: expected num_iters >= 0 but got {num_iters}; the papers use 3')
    if logits.ndim < 2:
        raise ValueError(f'{who}: expected logits of shape (..., B, K) but got {tuple(logits.shape)}; keep both')

    # Apple's devices have no float64.
    first_dtype = torch.float32 if logits.device.type == 'mps' else torch.float64
    log_q_BK = logits.to(first_dtype) / epsilon
    if num_iters == 0:
        log_q_X = log_q_BK.flatten(-2)
        share_1 = log_share(log_q_X, -1).exp() if gather else 1
        total_mass = joint_count(logits.shape[-2], log_q_X) if gather else logits.shape[-2]
        return (log_q_X.softmax(-1) * share_1 * total_mass).view_as(log_q_BK).to(logits.dtype)
    for _ in range(num_iters):
        log_share_1 = log_share(log_q_BK, -2) if gather else 0
        log_q_BK = (log_q_BK.log_softmax(dim=-2) + log_share_1).log_softmax(dim=-1).to(logits.dtype)
    return log_q_BK.exp()
