"""One loss of those of several candidate pairs of layers, without anything to train.

Shape suffixes: P pairs of a student's and a teacher's layer, S student, T teacher.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_positive, full_precision
from mmkd_ext.ops.distributed import gather_with_grad, num_processes, sum_with_grad
from mmkd_ext.ops.maps import MapLayout, pool_map
from mmkd_ext.scores.similarity import linear_cka

_SMALLEST = 1e-30
_LARGEST_RATIO = 1e4
_MOST_AMPLIFIED = 100.0


@full_precision
def pair_weights(first: Tensor, mean: Tensor, *, temperature: float = 0.5) -> Tensor:
    r"""Prefer pairs whose loss has come down, with a floor for the others.

    .. math:: w = \arg\min_{w \in \Delta} \; \sum_p w_p \frac{m_p}{a_p} + \tau \sum_p w_p \log w_p
        = \mathrm{softmax}\Big( -\frac{1}{\tau} \frac{m}{a} \Big)

    with :math:`m_p` the present loss of a pair and :math:`a_p` its first one. What is compared is the share of its loss
    that a pair has left, so a pair whose loss is small by nature has no advantage: all begin with equal weights. The
    entropy keeps pairs that have not risen above their first loss within a factor of :math:`e^{1/\tau}` of each other.

    An idea of this project: softmax weights in closed form where others learn them, which needs no optimizer.

    Args:
        first: :math:`a`, losses >= 0 of the first step, shape (P,).
        mean: :math:`m`, present losses >= 0, such as running means, shape (P,).
        temperature: :math:`\tau`; equal weights for a large one.

    Returns:
        Weights, shape (P,), sum 1. A pair without a first loss counts as one that has all of it left.

    Raises:
        TypeError: If ``temperature`` is not a number.
        ValueError: If ``temperature`` is not positive.
    """
    check_positive('pair_weights', temperature=temperature)
    left_P = torch.where(first > 0, mean / first.clamp(min=_SMALLEST), 1.0).clamp(max=_LARGEST_RATIO)
    return (-left_P / temperature).softmax(dim=0)


@full_precision
def pair_factors(mean: Tensor) -> Tensor:
    r"""Bring the losses of pairs to one size, their common mean.

    .. math:: f_p = \frac{\bar m}{\max(m_p, \bar m / 100)}

    so that :math:`f_p m_p = \bar m`: a sum weighted with these is of the size of one loss, as its weight expects. A
    pair that is as good as solved is amplified by 100 at most.

    Args:
        mean: :math:`m`, present losses >= 0, such as running means, shape (P,).

    Returns:
        Factors >= 0, shape (P,); 0 where all losses are 0.
    """
    return mean.mean() / mean.clamp(min=mean.mean() / _MOST_AMPLIFIED).clamp(min=_SMALLEST)


# --------------------------------------------------------------------------------------------------
# Ways to make one loss of several, by the names that a config gives them.

Pairs = Sequence[tuple[str, str]]
Features = Mapping[str, Tensor]
Layouts = Mapping[str, MapLayout | None]


class LayerChoice:
    """All pairs, equal weights: the mean of their losses.

    Args:
        pairs: Taps of student and teacher.

    Attributes:
        layouts: By tap of student and of teacher, what the axes are; those of others are (N, C, H, W) or (N, D).
    """

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = tuple(pairs)
        self.layouts: tuple[Layouts, Layouts] = {}, {}

    def active(self, student_features: Features, teacher_features: Features) -> Sequence[int]:
        """Return the places of the pairs whose losses are computed.

        Args:
            student_features: Tensors by tap.
            teacher_features: Tensors by tap.
        """
        return range(len(self.pairs))

    def combine(self, losses: Tensor) -> Tensor:
        """Make one loss of those of the active pairs.

        Args:
            losses: Shape (P,).
        """
        return losses.mean()

    def weights(self) -> Sequence[float] | Tensor:
        """Return the share of each pair at present; they sum to 1."""
        return [1 / len(self.pairs)] * len(self.pairs)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs to go on."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what :meth:`state_dict` returned."""


class CKAChoice(LayerChoice):
    """For each tap of the student the one tap of the teacher that is most alike before training; equal weights.

    Alike by debiased linear CKA of the first training batch, which is joined over all processes. Maps are averaged over
    their positions first. Of equal ones the pair that is named first is taken.
    """

    def __init__(self, pairs: Pairs) -> None:
        super().__init__(pairs)
        self.chosen: list[int] | None = None

    def active(self, student_features: Features, teacher_features: Features) -> Sequence[int]:
        """Choose in the first batch, and return the same ever after.

        Raises:
            ValueError: A tensor is neither a map nor rows, or the batch has fewer than four samples.
        """
        if self.chosen is None:
            rows_S = {tap: _rows(student_features[tap], self.layouts[0].get(tap)) for tap, _ in self.pairs}
            rows_T = {tap: _rows(teacher_features[tap], self.layouts[1].get(tap)) for _, tap in self.pairs}
            alike = [float(linear_cka(rows_S[tap_S], rows_T[tap_T], debiased=True)) for tap_S, tap_T in self.pairs]
            best: dict[str, int] = {}
            for place, (tap, _) in enumerate(self.pairs):
                if tap not in best or alike[place] > alike[best[tap]]:
                    best[tap] = place
            self.chosen = sorted(best.values())
        return self.chosen

    def weights(self) -> Sequence[float]:
        """Return 0 for those that were not chosen."""
        chosen = self.chosen or ()
        return [1 / len(chosen) if place in chosen else 0.0 for place in range(len(self.pairs))]

    def state_dict(self) -> dict[str, Any]:
        """Return the places of the chosen pairs."""
        return {'chosen': self.chosen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the choice of an earlier run."""
        self.chosen = state['chosen']


class NormalizedChoice(LayerChoice):
    r"""All pairs, brought to one size, equal weights.

    .. math:: \ell = \sum_p w_p f_p \ell_p, \qquad w_p = 1 / P

    with the factors :math:`f` of :func:`~mmkd_ext.distill.layer_choice.pair_factors`, from running means of the
    losses over about ten steps. No gradient flows through them. Losses are averaged over all processes, so factors are
    the same everywhere.
    """

    momentum = 0.9

    def __init__(self, pairs: Pairs) -> None:
        super().__init__(pairs)
        self.first: Tensor | None = None
        self.mean: Tensor | None = None

    def combine(self, losses: Tensor) -> Tensor:
        """Take note of the losses, and weigh them."""
        present = sum_with_grad(losses.detach().float()) / num_processes()
        if self.mean is None:
            self.first = self.mean = present
        else:
            self.mean = torch.lerp(present, self.mean.to(present.device), self.momentum)
        weights = torch.as_tensor(self.weights(), device=losses.device)
        return (weights * pair_factors(self.mean) * losses).sum()

    def state_dict(self) -> dict[str, Any]:
        """Return the first losses and the running means."""
        return {'first': self.first, 'mean': self.mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the losses of an earlier run."""
        self.first, self.mean = state['first'], state['mean']


class AdaptiveChoice(NormalizedChoice):
    """As :class:`NormalizedChoice`, and more of the pairs whose loss has come down since the first step.

    Weights are those of :func:`~mmkd_ext.distill.layer_choice.pair_weights`.
    """

    def weights(self) -> Tensor:
        """Return those of the last step."""
        assert self.first is not None  # combine() has noted both
        assert self.mean is not None
        return pair_weights(self.first.to(self.mean.device), self.mean)


_CHOICES = {'uniform': LayerChoice, 'normalized': NormalizedChoice, 'cka': CKAChoice, 'adaptive': AdaptiveChoice}


def build_layer_choice(name: str, pairs: Pairs) -> LayerChoice:
    """Build one by name.

    Args:
        name: ``'uniform'``, ``'normalized'``, ``'cka'`` or ``'adaptive'``.
        pairs: Taps of student and teacher.

    Raises:
        ValueError: There is no such choice, or a pair is named twice.
    """
    if name not in _CHOICES:
        raise ValueError(f'expected choice in {tuple(_CHOICES)} but got {name!r}')
    if len(set(pairs)) < len(pairs):
        raise ValueError(f'expected every pair once but got {list(pairs)}; remove what is double')
    return _CHOICES[name](pairs)


def _rows(x: Tensor, layout: MapLayout | None) -> Tensor:
    return gather_with_grad(pool_map(x.detach(), layout))
