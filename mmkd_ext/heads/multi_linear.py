"""Several linear maps of one shape, applied in one kernel.

Shape legend: H heads, B batch rows, I inputs, O outputs.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['MultiLinear']


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
