"""Several linear maps of one shape, applied in one kernel.

Shape legend: H heads, B batch rows, I inputs, O outputs.
"""

import math

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd_ext.functional.uno import lowest_objective
from mmkd_ext.heads.prototypes import Prototypes
from mmkd_ext.registry import MODELS

__all__ = ['MultiLinear', 'NovelHead']


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
#
# Shape legend: H heads, B batch rows, D dims, N novel classes.


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
            x = F.relu(norm(stacked)).unflatten(1, (self.num_heads, -1)).transpose(0, 1)
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
        """Mean training objective per head since the last reset, (H,); lower is better; NaN when never trained."""
        return self.objective_sum / self.objective_count

    @property
    def best_head(self) -> Tensor:
        """Index of the head with the lowest mean objective: (), int64, on the device; 0 when never trained."""
        return lowest_objective(self.mean_objective)
