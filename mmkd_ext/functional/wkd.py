"""Optimal transport between predicted classes, where moving to a related class is cheap (WKD-L).

Shape suffixes: N samples, C classes, K images of a class, D dims.
"""

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_choice, check_dims, check_not_negative, check_positive, full_precision
from mmkd_ext.ops.gram import directions
from mmkd_ext.ops.logits import check_same_classes

# Exponents span at most this much, so that products of scalings stay inside float32.
_LARGEST_SPAN = 40.0
_SMALLEST = 1e-30


@full_precision
def class_transport(
    student: Tensor,
    teacher: Tensor,
    *,
    cost: Tensor | None = None,
    labels: Tensor | None = None,
    temperature: float = 2.0,
    epsilon: float = 0.05,
    num_iters: int = 10,
    target_weight: float = 0.0,
) -> Tensor:
    r"""What it costs to turn the student's predictions into the teacher's, class by class.

    .. math:: \ell = \frac{1}{N} \sum_n \sum_{ij} c_{ij} F^n_{ij}, \qquad
        F^n = \mathrm{diag}(u)\, e^{-c / \epsilon}\, \mathrm{diag}(v), \quad
        F^n \mathbf{1} = \mathrm{softmax}(s_n / \tau), \quad F^{n \top} \mathbf{1} = \mathrm{softmax}(t_n / \tau)

    with the plan :math:`F^n` of entropic optimal transport after ``num_iters`` pairs of Sinkhorn's scalings, which end
    on the student's side; the gradient goes through them. KL compares each class with itself; here mass that lies on a
    class which the teacher takes for a relative has a short way.

    From "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation", Lv et al., NeurIPS 2024,
    arXiv 2412.08139, WKD-L. With ``labels`` the class of each sample is taken out of both predictions before the
    softmax, as there, and of the target itself the cross-entropy :math:`-p_y \log q_y` at temperature 1 is added with
    ``target_weight``. Public code was read in Changhy26/WKL, a fork: its objective is the target term plus
    :math:`\gamma` times the transport, so a term of weight :math:`\gamma` with ``target_weight`` :math:`1 / \gamma`; it
    adds :math:`10^{-8}` to each denominator and to the cost, which is not done here. All samples share one kernel: a
    class left out has no mass, so its row and column need not be cut out for every sample, as they are there.

    Args:
        student: Logits :math:`s`, shape (N, C).
        teacher: Logits :math:`t`, shape (N, C); no gradient flows to them.
        cost: :math:`c`, shape (C, C), symmetric, >= 0, 0 on the diagonal (:func:`class_costs`); None for 1 between any
            two classes, the control without relations.
        labels: Class of each sample, shape (N,); of one with a negative label nothing is taken out. None for all.
        temperature: :math:`\tau`.
        epsilon: Weight of the entropy; the cost may be at most 40 times as large.
        num_iters: Pairs of scalings.
        target_weight: Factor of the target's own term; needs ``labels``.

    Returns:
        Loss, a scalar; a differentiable 0 for an empty batch.

    Raises:
        TypeError: If a setting is not a number.
        ValueError: If shapes do not fit, a setting is out of range, or a value is NaN
            (:func:`~mmkd_ext.ops.logits.check_same_classes`).

    Example:
        >>> cost = torch.tensor([[0.0, 0.1, 1.0], [0.1, 0.0, 1.0], [1.0, 1.0, 0.0]])  # the first two are relatives
        >>> teacher, near, far = 9 * torch.eye(3)[:, None]
        >>> class_transport(near, teacher, cost=cost) < class_transport(far, teacher, cost=cost)
        tensor(True)
    """
    caller = 'class_transport'
    check_positive(caller, temperature=temperature, epsilon=epsilon, num_iters=num_iters)
    check_not_negative(caller, target_weight=target_weight)
    check_dims(caller, 'N C', student=student, teacher=teacher)
    check_same_classes(caller, student, teacher)
    num_samples, num_classes = student.shape
    if num_samples == 0 or num_classes < 2:
        return student[:0].sum()
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    student, teacher = student.to(dtype), teacher.detach().to(dtype)
    if cost is None:
        cost_CC = 1 - torch.eye(num_classes, dtype=dtype, device=student.device)
    else:
        check_cost(caller, cost, num_classes, epsilon)
        cost_CC = cost.to(student)
    kept_NC = torch.ones_like(student, dtype=torch.bool)
    if labels is not None:
        kept_NC = torch.arange(num_classes, device=student.device) != labels.to(student.device)[:, None]
    q_NC, p_NC = ((x / temperature).masked_fill(~kept_NC, -torch.inf).softmax(dim=1) for x in (student, teacher))
    loss = _transport(q_NC, p_NC, cost_CC, kept_NC, epsilon, num_iters)
    if labels is None or target_weight == 0:
        return loss
    target_N1 = labels.to(student.device)[:, None]
    log_q_N1, log_p_N1 = (x.log_softmax(dim=1).gather(1, target_N1.clamp(min=0)) for x in (student, teacher))
    # A logarithm of nearly nothing times nearly nothing is nothing, and no sample without a label has a target.
    of_target = torch.where(target_N1 >= 0, -log_p_N1.exp() * log_q_N1, 0.0).sum() / num_samples
    return loss + target_weight * of_target


def check_cost(caller: str, cost: Tensor, num_classes: int | None = None, epsilon: float | None = None) -> None:
    """Refuse what cannot be the costs between classes; modules call it when they are built.

    Values are looked at on the CPU only.

    Args:
        caller: Function or class that speaks in the error.
        cost: Shape (C, C).
        num_classes: C, where it is known.
        epsilon: Weight of the entropy, where it is known.

    Raises:
        ValueError: If it is not square, not of C classes, negative, or too large for ``epsilon``.
    """
    size = len(cost) if num_classes is None else num_classes
    if cost.shape != (size, size):
        raise ValueError(
            f'{caller}: expected cost of shape ({size}, {size}) but got {tuple(cost.shape)}; '
            f'make it of as many classes as the networks predict, see class_costs'
        )
    if cost.device.type != 'cpu' or torch.compiler.is_compiling():
        return
    limit = torch.inf if epsilon is None else _LARGEST_SPAN * epsilon
    if not bool((cost >= 0).all() and (cost <= limit).all()):
        raise ValueError(
            f'{caller}: expected 0 <= cost <= {limit:g}, {_LARGEST_SPAN:g} epsilon, but got {float(cost.min()):g} to '
            f'{float(cost.max()):g}; raise epsilon or make the cost smaller'
        )


@full_precision
@torch.no_grad()
def class_costs(
    features: Tensor, labels: Tensor, *, num_classes: int, relation: str = 'cka', sharpness: float = 0.0
) -> Tensor:
    r"""How unlike the teacher's classes are.

    .. math:: c_{ij} = 1 - r_{ij}, \qquad\text{or}\qquad 1 - e^{-\kappa (1 - r_{ij})}

    with the relation :math:`r` of two classes

    - ``'cka'``, the paper's: linear CKA of the features of K images of each class. It compares how the first, second,
      ... image of one class lie to each other with how those of the other do. Images of different classes do not pair
      up by themselves: their order decides, and with few of them little else does. Give many, in a fixed order;
    - ``'centres'``: cosine of the means of the classes' features. Of the rows of the teacher's classifier, with
      ``labels`` 0, 1, ..., it is the public code's ``fc``.

    Args:
        features: Of the teacher, on training images, shape (M, ...).
        labels: Their classes, shape (M,).
        num_classes: C.
        relation: ``'cka'`` or ``'centres'``.
        sharpness: :math:`\kappa`; 0 for the cost itself.

    Returns:
        Symmetric, >= 0, 0 on the diagonal, shape (C, C).

    Raises:
        ValueError: If a class has no image, or with ``'cka'`` a single one.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # of a classifier
        >>> class_costs(rows, torch.arange(3), num_classes=3, relation='centres')
        tensor([[0., 0., 1.],
                [0., 0., 1.],
                [1., 1., 0.]])
    """
    caller = 'class_costs'
    check_not_negative(caller, sharpness=sharpness)
    check_choice(caller, ('cka', 'centres'), relation=relation)
    counts = torch.bincount(labels[labels >= 0], minlength=num_classes)
    images, least = int(counts.min()), 2 if relation == 'cka' else 1
    if images < least:
        raise ValueError(
            f'{caller}: expected at least {least} images of each class but got {images} of class '
            f'{int(counts.argmin())}; take more images'
        )
    vectors = []
    for label in range(num_classes):
        x_KD = features[labels == label].flatten(1)
        if relation == 'cka':
            x_KD = x_KD[:images] - x_KD[:images].mean(dim=0)
            vectors.append((x_KD @ x_KD.T).flatten())
        else:
            vectors.append(x_KD.mean(dim=0))
    unit_CX = directions(torch.stack(vectors)).unit_XD
    unlike_CC = (1 - unit_CX @ unit_CX.T).clamp(min=0)
    unlike_CC.fill_diagonal_(0)
    return unlike_CC if sharpness == 0 else 1 - (-sharpness * unlike_CC).exp()


def _transport(q_NC: Tensor, p_NC: Tensor, cost_CC: Tensor, kept_NC: Tensor, epsilon: float, num_iters: int) -> Tensor:
    kernel_CC = (cost_CC / -epsilon).exp()
    u_NC = kept_NC.to(q_NC.dtype)
    for _ in range(num_iters):
        v_NC = p_NC / (u_NC @ kernel_CC).clamp(min=_SMALLEST)
        u_NC = q_NC / (v_NC @ kernel_CC.T).clamp(min=_SMALLEST)
    return ((u_NC @ (kernel_CC * cost_CC)) * v_NC).sum() / len(q_NC)
