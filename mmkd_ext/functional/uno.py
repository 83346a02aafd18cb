"""Novel class discovery by swapped prediction between views (UNO), and the pseudo-labels that it predicts (Sinkhorn).

Shape suffixes: V views, the L large ones first; H heads; B batch rows; C = K + N classes, known then novel. Of
Sinkhorn-Knopp: B samples, K prototypes, P independent problems, all leading dimensions (views, heads) taken together.
"""

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_dims, check_positive, full_precision
from mmkd_ext.ops.distributed import joint_count, log_share, num_processes, sum_with_grad


def lowest_objective(objective_H: Tensor) -> Tensor:
    """Choose one of several heads without labels: the one with the lowest mean training objective.

    Args:
        objective_H: Lower is better; NaN, of a head that was never trained, is the last to be taken. Shape (H,).

    Returns:
        Index, (), int64, on the device; 0 when none was trained.
    """
    return objective_H.nan_to_num(torch.inf).argmin()


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
        gather: Take the mean over the rows of all processes (:func:`~mmkd_ext.ops.sum_with_grad`); B may then
            differ between them.

    Returns:
        Loss of each head, shape (H,); 0 for an empty batch.

    Raises:
        ValueError: If shapes differ, there is only one view, or a setting is out of range.

    Example:
        >>> logits = torch.zeros(2, 1, 4, 3)  # two views, one head: log 3
        >>> swapped_prediction(logits, logits.softmax(-1), num_large=2)
        tensor([1.0986])
    """
    caller = 'swapped_prediction'
    check_positive(caller, temperature=temperature)
    check_dims(caller, 'V H B C', logits=logits, targets=targets)
    if logits.shape != targets.shape:
        raise ValueError(
            f'{caller}: expected targets of the shape of logits {tuple(logits.shape)} but got {tuple(targets.shape)}; '
            f'give small views zero targets'
        )
    num_views, _, batch_size, _ = logits.shape
    if num_views < 2 or not 1 <= num_large <= num_views:
        raise ValueError(
            f'{caller}: expected V >= 2 views and 1 <= num_large <= V but got V={num_views}, num_large={num_large}; '
            f'check the multi-view transform'
        )

    log_prob_VHBC = (logits / temperature).log_softmax(dim=-1)
    others_LHBC = log_prob_VHBC.sum(dim=0) - log_prob_VHBC[:num_large]
    loss_H = -(targets[:num_large].detach() * others_LHBC).sum(dim=(0, 2, 3))
    num_terms = num_large * (num_views - 1)
    if gather:
        return sum_with_grad(loss_H) / (num_terms * joint_count(batch_size, loss_H))
    return loss_H / (num_terms * max(batch_size, 1))


# --------------------------------------------------------------------------------------------------
# Sinkhorn-Knopp.

# Exponents span at most this much where scalings are multiplied: e^-60 times e^-60 is far from float32's last number.
_LARGEST_SPAN = 60.0


@full_precision
@torch.no_grad()
def sinkhorn_knopp(logits: Tensor, *, epsilon: float = 0.05, num_iters: int = 3, gather: bool = False) -> Tensor:
    r"""Assign samples to prototypes by entropic optimal transport with equal marginals.

    Looks for :math:`Q = \mathrm{diag}(u)\, e^{L / \epsilon}\, \mathrm{diag}(v)` whose samples all weigh the same and
    whose prototypes all receive :math:`B / K`, by scaling prototypes and samples in turn. It ends on the samples, so
    each row sums to one exactly, and the prototypes are balanced only as far as ``num_iters`` iterations go: after the
    usual three, by a few dozen percent.

    Equal to the official code wherever that is finite. All leading dimensions are solved together. Two ways lead to the
    same numbers:

    * Logits within a span of :math:`60\,\epsilon`, as all cosines are at 0.05: the exponential is taken once, and each
      scaling is a product of that matrix with a vector.
    * Others, and any logits on a GPU, where to look at their span would make the host wait, or of several processes:
      on logarithms, so that nothing overflows. The first iteration runs in float64, because ``logits / epsilon``
      rounded to float32 has already lost the differences that decide once logits exceed a few units.

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

    Example:
        >>> sinkhorn_knopp(torch.zeros(4, 2))[0]
        tensor([0.5000, 0.5000])
    """
    caller = 'sinkhorn_knopp'
    check_positive(caller, epsilon=epsilon)
    if num_iters < 0:
        raise ValueError(f'{caller}: expected num_iters >= 0 but got {num_iters}; the papers use 3')
    if logits.ndim < 2:
        raise ValueError(f'{caller}: expected logits of shape (..., B, K) but got {tuple(logits.shape)}; keep both')

    is_alone = not gather or num_processes() == 1
    if num_iters and is_alone and _fits_exponential(logits, epsilon):
        return _multiply_scalings(logits, epsilon, num_iters)
    return _add_logarithms(logits, epsilon, num_iters, gather)


def _fits_exponential(logits: Tensor, epsilon: float) -> bool:
    if logits.device.type != 'cpu' or logits.numel() == 0 or torch.compiler.is_compiling():
        return False
    lowest, highest = logits.aminmax()
    return bool(highest - lowest < _LARGEST_SPAN * epsilon)


def _multiply_scalings(logits: Tensor, epsilon: float, num_iters: int) -> Tensor:
    # The largest goes first: what is left of a difference after a division by epsilon has fewer digits.
    kernel_PBK = (logits - logits.amax()).mul_(1 / epsilon).exp_().reshape(-1, *logits.shape[-2:])
    sample_P1B = torch.ones_like(kernel_PBK[:, None, :, 0])
    for _ in range(num_iters):
        prototype_P1K = torch.bmm(sample_P1B, kernel_PBK).reciprocal_()
        # One common factor is free; fixed, it cannot grow from iteration to iteration.
        prototype_P1K /= prototype_P1K.sum(dim=-1, keepdim=True)
        # Row times transposed matrix: the same as matrix times column, and 2.5 times faster on a CPU.
        sample_P1B = torch.bmm(prototype_P1K, kernel_PBK.mT).reciprocal_()
    return kernel_PBK.mul_(prototype_P1K).mul_(sample_P1B.mT).view(logits.shape)


def _add_logarithms(logits: Tensor, epsilon: float, num_iters: int, gather: bool) -> Tensor:
    # Apple's devices have no float64.
    first_dtype = torch.float32 if logits.device.type == 'mps' else torch.float64
    # Quotients and their differences stay finite.
    limit = torch.finfo(first_dtype).max * min(epsilon, 1.0) / 4
    log_q_BK = logits.to(first_dtype).clamp(-limit, limit) / epsilon
    if num_iters == 0:
        log_q_X = log_q_BK.flatten(-2)
        share_1 = log_share(log_q_X, -1).exp() if gather else 1
        total_mass = joint_count(logits.shape[-2], log_q_X) if gather else logits.shape[-2]
        return (log_q_X.softmax(-1) * share_1 * total_mass).view_as(log_q_BK).to(logits.dtype)
    for _ in range(num_iters):
        log_share_1 = log_share(log_q_BK, -2) if gather else 0
        log_q_BK = (log_q_BK.log_softmax(dim=-2) + log_share_1).log_softmax(dim=-1).to(logits.dtype)
    return log_q_BK.exp()
