"""Heads of unit prototypes, one learnable direction per class: of known classes, and of novel ones behind projectors.

Shape legend: H heads, N prototypes, D dims, B batch rows, I inputs, O outputs.
"""

import math
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd_ext.functional.uno import lowest_objective
from mmkd_ext.ops.arguments import full_precision, settled_unit_rows, unit_rows
from mmkd_ext.ops.distributed import num_processes
from mmkd_ext.registry import MODELS


def batch_norm(caller: str, norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise rows; a single row in training, which has no statistics, by the running ones.

    Such a row is what is left for the last batch of an epoch without ``drop_last``.

    Args:
        caller: Head that speaks in the error.
        norm: A batch norm.
        x: (B, C).

    Raises:
        ValueError: There are no running statistics yet.
    """
    joins_processes = 'Sync' in type(norm).__name__ and num_processes() > 1
    if not norm.training or len(x) != 1 or joins_processes or not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return norm(x)
    if not norm.num_batches_tracked:
        raise ValueError(
            f'{caller}: expected batches of at least 2 images, whose statistics it normalises by, but the first has 1; '
            'raise batch_size of train_dataloader, and set drop_last=True'
        )
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, eps=norm.eps)


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


# --------------------------------------------------------------------------------------------------
# Several linear maps of one shape, applied in one kernel.


class MultiLinear(nn.Module):
    """H independent ``nn.Linear`` layers with their weights stacked, each initialised as ``nn.Linear`` would be.

    Args:
        num_heads: H.
        in_features: I.
        out_features: O.

    Attributes:
        weight (nn.Parameter): (H, O, I).
        bias (nn.Parameter): (H, O).
    """

    def __init__(self, num_heads: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_heads, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(num_heads, out_features))
        bound = 1 / math.sqrt(in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Apply each head's map.

        Args:
            x: (B, I) shared by all heads, or (H, B, I) one input per head.

        Returns:
            (H, B, O).
        """
        if x.dim() == 2:
            stacked = F.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
            return stacked.unflatten(1, self.bias.shape).transpose(0, 1)
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.mT)

    def extra_repr(self) -> str:
        """Describe the sizes."""
        num_heads, out_features, in_features = self.weight.shape
        return f'num_heads={num_heads}, in_features={in_features}, out_features={out_features}'


# --------------------------------------------------------------------------------------------------
# Discovery head: several projectors, each with its own unit prototypes.


@MODELS.register_module()
class NovelHead(BaseModule):
    """Multi-head projector and prototypes of UNO (arXiv 2108.08536, section 3.3) and Cr-KD (arXiv 2307.09158).

    Each of H heads is an MLP, ``num_hidden_layers`` times [linear, batch norm, ReLU] and a last linear, whose output
    is compared by cosine with N prototypes. All heads run in the same kernels. One ``BatchNorm1d`` over H x hidden
    channels is exactly one batch norm per head, and becomes ``SyncBatchNorm`` where the runner converts them.

    The head also remembers how well each of its heads fits its training objective; prediction uses the best one.
    These statistics are buffers, so that a checkpoint keeps the choice; :class:`mmkd_ext.hooks.BestHeadHook` resets
    them each epoch.

    Args:
        in_channels: Dimension of the backbone's features.
        num_classes: N, number of novel classes (or of over-clusters).
        num_heads: H.
        hidden_channels: Width of the hidden layers.
        embed_channels: D, dimension of the prototypes.
        num_hidden_layers: Number of hidden layers, at least 1.
        init_cfg: Initialisation, as in mmengine. By default each head starts as ``nn.Linear`` does.

    Attributes:
        objective_sum: (H,), training objective of each head, summed over steps.
        objective_count: (), number of steps.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_heads: int = 4,
        hidden_channels: int = 2048,
        embed_channels: int = 256,
        num_hidden_layers: int = 1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_hidden_layers < 1:
            raise ValueError(f'NovelHead: expected num_hidden_layers >= 1 but got {num_hidden_layers}; use 1 as in UNO')
        self.num_classes = num_classes
        self.num_heads = num_heads
        self.prototypes = Prototypes(embed_channels, num_classes, num_heads)
        widths = [in_channels, *[hidden_channels] * num_hidden_layers]
        self.layers = nn.ModuleList(
            MultiLinear(num_heads, width_in, width_out)
            for width_in, width_out in zip(widths, [*widths[1:], embed_channels], strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(num_heads * hidden_channels) for _ in range(num_hidden_layers))
        self.register_buffer('objective_sum', torch.zeros(num_heads))
        self.register_buffer('objective_count', torch.zeros(()))

    def project(self, features: Tensor) -> Tensor:
        """Map features into the space of each head's prototypes.

        Args:
            features: (B, in_channels), the rows of one view: batch statistics are those of one call.

        Returns:
            (H, B, D), not normalised.
        """
        x = features
        for linear, norm in zip(self.layers, self.norms, strict=False):
            stacked = linear(x).transpose(0, 1).flatten(1)
            x = F.relu(batch_norm('NovelHead', norm, stacked)).unflatten(1, (self.num_heads, -1)).transpose(0, 1)
        return self.layers[-1](x)

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits of the novel classes.

        Args:
            features: (B, in_channels), the rows of one view.

        Returns:
            (H, B, N), cosines in [-1, 1] when the prototypes are unit.
        """
        return self.prototypes(self.project(features))

    @torch.no_grad()
    def update_objective(self, loss_per_head: Tensor) -> None:
        """Add one training step to the statistics.

        Args:
            loss_per_head: (H,).
        """
        self.objective_sum += loss_per_head.detach()
        self.objective_count += 1

    def reset_objective(self) -> None:
        """Forget the statistics."""
        self.objective_sum.zero_()
        self.objective_count.zero_()

    @property
    def mean_objective(self) -> Tensor:
        """Mean objective of each head since the last reset, shape (H,), lower is better; NaN when never trained."""
        return self.objective_sum / self.objective_count

    @property
    def best_head(self) -> Tensor:
        """Index of the head whose mean objective is lowest, shape (), int64, on the device; 0 when never trained."""
        return lowest_objective(self.mean_objective)
