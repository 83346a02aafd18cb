"""Class-relation knowledge distillation for novel class discovery (Cr-KD).

Shape suffixes: V views, H heads, U unlabelled rows, C = K + N classes, the K known ones first. A teacher with one head
(H = 1) teaches all heads of the student.
"""

from dataclasses import InitVar, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mmkd_ext.ops.arguments import check_choice, check_dims, check_positive, full_precision, refuse_second_derivative
from mmkd_ext.ops.distributed import joint_count, log_share, sum_with_grad

# Logits at their temperature of which no largest need be subtracted before the exponential.
_SMALL = 20.0


@dataclass(frozen=True, kw_only=True)
class ClassRelationSettings:
    r"""Settings of :func:`class_relation_kd`, in the notation used there; defaults are those of the official code.

    Args:
        temperature: :math:`\tau`, which the classifier is trained with.
        kd_temperature: :math:`T`, which softens both distributions further.
        divergence: Code ``'ce'``, cross-entropy, whose minimum is the teacher's entropy and not zero; paper ``'kl'``.
            The values differ by that entropy times the weight, so gradients differ wherever the weight carries one.
        weight: ``'normalized'`` for :math:`g(\eta)` as in code and paper, ``'none'`` for 1 (ablation).
        weight_temperature: :math:`\tau_w`. Code None, meaning :math:`\tau T`, which makes weights nearly flat; paper
            :math:`\tau`.
        detach_weight: Code False; True takes the weight as a constant. The paper calls it learnable.
        scale_by_squared_temperature: Code True; False leaves out :math:`T^2`, which the paper does not have.
        weight_mean: Code ``'joint'``, one mean of :math:`\eta` over views, heads and samples; paper
            ``'per_view_head'``, the mean over the samples of the batch.
        caller: Function or class that speaks in the error.

    Raises:
        TypeError: If a temperature is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    temperature: float = 0.1
    kd_temperature: float = 4.0
    divergence: str = 'ce'
    weight: str = 'normalized'
    weight_temperature: float | None = None
    detach_weight: bool = False
    scale_by_squared_temperature: bool = True
    weight_mean: str = 'joint'
    caller: InitVar[str] = 'class_relation_kd'

    def __post_init__(self, caller: str) -> None:
        check_positive(caller, temperature=self.temperature, kd_temperature=self.kd_temperature)
        if self.weight_temperature is not None:
            check_positive(caller, weight_temperature=self.weight_temperature)
        check_choice(caller, ('ce', 'kl'), divergence=self.divergence)
        check_choice(caller, ('normalized', 'none'), weight=self.weight)
        check_choice(caller, ('joint', 'per_view_head'), weight_mean=self.weight_mean)


_OFFICIAL = ClassRelationSettings()


@full_precision
def class_relation_kd(
    student: Tensor,
    teacher: Tensor,
    settings: ClassRelationSettings = _OFFICIAL,
    *,
    gather: bool = False,
    **changes: Any,
) -> Tensor:
    r"""Keep what a supervised teacher knows about unlabelled samples: their relation to the known classes.

    With :math:`p` the teacher's and :math:`q` the student's distribution over the *known* classes at temperature
    :math:`\tau T`, and :math:`\eta` the mass that the student, over all classes, puts on the known ones,

    .. math:: \ell_h = \frac{T^2}{V U} \sum_{v, i} g(\eta_{vhi})\, D(p_{vhi}, q_{vhi}), \qquad
        g(\eta) = \frac{\eta}{\mathrm{mean}(\eta)}, \qquad \eta = \sum_{k \le K} \mathrm{softmax}(s / \tau_w)_k

    so that samples which resemble known classes are held harder. The weight has no parameters; it learns because
    gradient flows through :math:`\eta`, and only this way does the term reach the logits of novel classes.

    From "Class-relation Knowledge Distillation for Novel Class Discovery", Gu et al., ICCV 2023, arXiv 2307.09158,
    Eq. 4-7. Defaults are those of the official code, which differs from the paper in five ways; the paper's own loss is
    ``divergence='kl', weight_temperature=temperature, scale_by_squared_temperature=False,
    weight_mean='per_view_head'``, with ``kd_temperature`` such that :math:`\tau T` is the paper's :math:`t`.

    Args:
        student: Cosine logits :math:`s` of unlabelled rows, shape (V, H, U, C).
        teacher: Cosine logits of the same crops over known classes, shape (V, H or 1, U, K); taken as constants.
        settings: Temperatures and variants.
        gather: Take both means, of the loss and of :math:`\eta`, over the rows of all processes
            (:func:`~mmkd_ext.ops.sum_with_grad`); all of them must call, also with U = 0.
        **changes: Settings by name, such as ``divergence='kl'``; the others are those of ``settings``.

    Returns:
        Loss of each head, shape (H,); a differentiable 0 when U = 0.

    Raises:
        TypeError: If a setting has no such name, or a temperature is not a number.
        ValueError: If a shape does not fit or a setting is unknown or out of range.
        RuntimeError: In backward with ``create_graph=True``: there is no second derivative.

    Example:
        >>> student, teacher = torch.zeros(2, 1, 4, 5), torch.zeros(2, 1, 4, 3)  # both undecided; three known classes
        >>> class_relation_kd(student, teacher, divergence='kl').abs() < 1e-6
        tensor([True])
    """
    if changes:
        settings = replace(settings, caller='class_relation_kd', **changes)
    _check_shapes(student, teacher)
    num_views, num_heads, num_own, _ = student.shape
    num_unlabelled = joint_count(num_own, student) if gather else max(num_own, 1)

    softness = settings.temperature * settings.kd_temperature
    log_p_VHUK = (teacher.detach() / softness).log_softmax(dim=-1)
    p_VHUK = log_p_VHUK.exp()
    loss_VHU, log_eta_VHU = _KnownClasses.apply(student, p_VHUK, softness)
    if settings.divergence == 'kl':
        loss_VHU = loss_VHU + (p_VHUK * log_p_VHUK).sum(dim=-1)
    if settings.weight == 'normalized':
        if settings.weight_temperature not in (None, softness):
            _, log_eta_VHU = _KnownClasses.apply(student, p_VHUK, settings.weight_temperature)
        is_joint = settings.weight_mean == 'joint'
        num_averaged = num_unlabelled * num_views * num_heads if is_joint else num_unlabelled
        weight_VHU = _mass_shares(log_eta_VHU, is_joint, gather) * num_averaged
        loss_VHU = loss_VHU * (weight_VHU.detach() if settings.detach_weight else weight_VHU)
    scale = settings.kd_temperature**2 if settings.scale_by_squared_temperature else 1.0
    loss_H = loss_VHU.sum(dim=(0, 2))
    return (sum_with_grad(loss_H) if gather else loss_H) * scale / (num_views * num_unlabelled)


class _KnownClasses(torch.autograd.Function):
    r"""Cross-entropy over known classes and log(eta), from one exponential per logit, with the gradient in closed form.

    With :math:`z` the logits at their temperature and :math:`\Lambda_K, \Lambda_N` the log-sum-exp of known and novel
    ones, the cross-entropy is :math:`\Lambda_K - \langle p, z_K \rangle` and
    :math:`\eta = \mathrm{sigmoid}(\Lambda_K - \Lambda_N)`.
    """

    @staticmethod
    def forward(ctx: Any, student_VHUC: Tensor, p_VHUK: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        num_known = p_VHUK.shape[-1]
        z_VHUC = student_VHUC * (1 / temperature)
        known_VHUK, novel_VHUN = z_VHUC[..., :num_known], z_VHUC[..., num_known:]
        is_small = _is_small(z_VHUC)
        top_known_VHU = 0.0 if is_small else _subtract_largest_(known_VHUK)
        top_novel_VHU = 0.0 if is_small else _subtract_largest_(novel_VHUN)
        agreement_VHU = (p_VHUK * known_VHUK).sum(dim=-1)
        z_VHUC.exp_()
        sum_known_VHU, sum_novel_VHU = known_VHUK.sum(dim=-1), novel_VHUN.sum(dim=-1)
        log_known_VHU = sum_known_VHU.log()
        gap_VHU = (top_known_VHU + log_known_VHU) - (top_novel_VHU + sum_novel_VHU.log())
        ctx.temperature = temperature
        ctx.save_for_backward(z_VHUC, p_VHUK, sum_known_VHU, sum_novel_VHU, gap_VHU)
        return log_known_VHU - agreement_VHU, functional.logsigmoid(gap_VHU)

    @staticmethod
    def backward(ctx: Any, grad_loss_VHU: Tensor, grad_log_eta_VHU: Tensor) -> tuple[Tensor, None, None]:
        refuse_second_derivative('class_relation_kd')
        exp_VHUC, p_VHUK, sum_known_VHU, sum_novel_VHU, gap_VHU = ctx.saved_tensors
        num_known = p_VHUK.shape[-1]
        pull_VHU = grad_log_eta_VHU * torch.sigmoid(-gap_VHU) / ctx.temperature
        grad_loss_VHU = grad_loss_VHU / ctx.temperature
        gradient_VHUC = exp_VHUC.clone()
        known_VHUK, novel_VHUN = gradient_VHUC[..., :num_known], gradient_VHUC[..., num_known:]
        known_VHUK *= ((grad_loss_VHU + pull_VHU) / sum_known_VHU)[..., None]
        known_VHUK.addcmul_(p_VHUK, grad_loss_VHU[..., None], value=-1)
        novel_VHUN *= (-pull_VHU / sum_novel_VHU)[..., None]
        return gradient_VHUC, None, None


def _is_small(z_X: Tensor) -> bool:
    """Whether exponentials of all of these stay precise, and their sums; only on the CPU, as the host waits."""
    if z_X.device.type != 'cpu' or torch.compiler.is_compiling() or z_X.numel() == 0:
        return False
    lowest, highest = z_X.aminmax()
    return bool(lowest > -_SMALL) and bool(highest < _SMALL)


def _subtract_largest_(z_X: Tensor) -> Tensor:
    """Shift the last dimension, in place, so that its largest is 0, and return by how much."""
    if z_X.shape[-1] == 0:
        return z_X.new_zeros(z_X.shape[:-1])
    largest_X1 = z_X.amax(dim=-1, keepdim=True)
    z_X -= largest_X1
    return largest_X1.squeeze(-1)


def _mass_shares(log_eta_VHU: Tensor, is_joint: bool, gather: bool) -> Tensor:
    """The ratio eta / sum(eta), as a softmax of log(eta): never 0 / 0, however little mass known classes have."""
    scores = log_eta_VHU.flatten() if is_joint else log_eta_VHU
    shares = scores.softmax(dim=-1)
    return (shares * log_share(scores, -1).exp() if gather else shares).view_as(log_eta_VHU)


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    caller = 'class_relation_kd'
    check_dims(caller, 'V H U C', student=student)
    check_dims(caller, 'V H U K', teacher=teacher)
    num_views, num_heads, num_unlabelled, num_classes = student.shape
    fits = (
        teacher.shape[0] == num_views
        and teacher.shape[1] in (1, num_heads)
        and teacher.shape[2] == num_unlabelled
        and 1 <= teacher.shape[3] <= num_classes
    )
    if not fits:
        raise ValueError(
            f'{caller}: expected teacher of shape (V={num_views}, H={num_heads} or 1, U={num_unlabelled}, '
            f'K<={num_classes}) but got {tuple(teacher.shape)}; feed both networks the same crops and rows, known '
            f'classes first'
        )
