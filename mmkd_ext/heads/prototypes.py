"""Unit prototypes: one learnable direction per class.

Shape legend: H heads, N prototypes, D dims.
"""

import math
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd_ext.ops.distances import settled_unit_rows, unit_rows
from mmkd_ext.ops.precision import full_precision
from mmkd_ext.registry import MODELS

__all__ = ['CosineHead', 'Prototypes']


def _save_unit_rows(module: nn.Module, state_dict: dict[str, Any], prefix: str, _: dict[str, Any]) -> None:
    """State-dict hook: put normalised copies in place of the prototypes.

    Live entries stay: those of ``keep_vars=True``, and those of a frozen module, because mmengine's averaged models
    write their averages through ``state_dict()``.
    """
    entry = state_dict[prefix + 'weight']
    if module.weight.requires_grad and not isinstance(entry, nn.Parameter):
        state_dict[prefix + 'weight'] = settled_unit_rows(entry)


@full_precision
def _cosine(features: Tensor, unit_weight: Tensor) -> Tensor:
    return unit_rows(features) @ unit_weight.to(features.dtype).mT


class Prototypes(nn.Module):
    r"""Cosine of features to prototypes :math:`c_n`: logits :math:`\langle x / |x|, c_n \rangle` in [-1, 1].

    The prototypes are unit vectors by an invariant, not by a reparametrisation, as in UNO (arXiv 2108.08536) and
    Cr-KD (arXiv 2307.09158): the model calls :meth:`normalize_` at the start of each training step, after which the
    forward is a plain linear map whose leaf is ``weight``. Hence the gradient has a radial part too. Between an
    optimizer step and the next :meth:`normalize_` the live rows are not unit; evaluation normalises them on the fly,
    and ``state_dict()`` holds normalised copies. The official code evaluates and saves them as they are.

    The product is computed in float32 inside autocast: cosines are soon divided by 0.05, which would turn the
    rounding of bfloat16 into errors of several per cent of a probability.

    Args:
        in_channels: D, dimension of the features.
        num_prototypes: N, prototypes of each head.
        num_heads: H, number of independent sets of prototypes; ``None`` for one set without the head
            axis.
        normalize_at_eval: Whether evaluation uses unit prototypes. ``False`` takes ``weight`` as loaded.

    Attributes:
        weight (nn.Parameter): (N, D) or (H, N, D).
    """

    def __init__(
        self, in_channels: int, num_prototypes: int, num_heads: int | None = None, *, normalize_at_eval: bool = True
    ) -> None:
        super().__init__()
        shape = (num_prototypes, in_channels) if num_heads is None else (num_heads, num_prototypes, in_channels)
        if min(shape) < 1:
            raise ValueError(f'Prototypes: expected positive sizes but got {shape}; check the channels and classes')
        self.normalize_at_eval = normalize_at_eval
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.uniform_(self.weight, -1 / math.sqrt(in_channels), 1 / math.sqrt(in_channels))
        self._register_state_dict_hook(_save_unit_rows)

    @torch.no_grad()
    def normalize_(self) -> None:
        """Make the live prototypes unit, in place; a second call changes no bit (:func:`settled_unit_rows`)."""
        self.weight.copy_(settled_unit_rows(self.weight))

    def forward(self, features: Tensor) -> Tensor:
        """Compute cosine logits.

        Args:
            features: (..., D), or (H, B, D) with heads; need not be normalised.

        Returns:
            (..., N) or (H, B, N), float32 for half and bfloat16 features, else the dtype of the features.
        """
        use_live = self.training or not self.normalize_at_eval
        return _cosine(features, self.weight if use_live else settled_unit_rows(self.weight))

    def extra_repr(self) -> str:
        """Describe the shape of the prototypes."""
        return f'shape={tuple(self.weight.shape)}, normalize_at_eval={self.normalize_at_eval}'


# --------------------------------------------------------------------------------------------------
# Classification head of the known classes.


@MODELS.register_module()
class CosineHead(BaseModule):
    """Known head of UNO and Cr-KD: cosines between the backbone's features and one unit prototype per known class.

    Args:
        in_channels: D, dimension of the features.
        num_classes: K, number of known classes.
        normalize_at_eval: ``False`` evaluates the prototypes as they were left by the last optimizer step,
            which is what the frozen teacher of the official Cr-KD code does. Only checkpoints converted from the
            official code show a difference: ours are saved with unit prototypes.
        init_cfg: Initialisation, as in mmengine.
    """

    def __init__(
        self, in_channels: int, num_classes: int, normalize_at_eval: bool = True, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.prototypes = Prototypes(in_channels, num_classes, normalize_at_eval=normalize_at_eval)

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits of the known classes.

        Args:
            features: (..., D).

        Returns:
            (..., K), cosines in [-1, 1] when the prototypes are unit.
        """
        return self.prototypes(features)
