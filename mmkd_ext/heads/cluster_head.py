"""Classes that were found by clustering, as a head.

Shape legend: B batch rows, C clusters, D dims.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmkd_ext.ops.distances import unit_rows
from mmkd_ext.ops.precision import full_precision
from mmkd_ext.registry import MODELS

__all__ = ['ClusterHead']


@full_precision
def _nearness(features_BD: Tensor, centre_CD: Tensor) -> Tensor:
    unit_BD = unit_rows(features_BD)
    return unit_BD @ centre_CD.to(unit_BD.dtype).mT + (1 - centre_CD.square().sum(dim=-1)) / 2


@MODELS.register_module()
class ClusterHead(BaseModule):
    """Compares features, made unit, with the centres of clusters; :class:`mmkd_ext.hooks.ClusterHook` finds these.

    Nothing in it is trained, and a checkpoint keeps the centres. Before there are any, all logits are equal.

    Args:
        in_channels: D, dimension of the features.
        num_clusters: C, known classes first.
        init_cfg: Initialisation, as in mmengine.

    Attributes:
        centre (Tensor): (C, D), means of unit features, so of length 1 at most.
    """

    def __init__(self, in_channels: int, num_clusters: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if min(in_channels, num_clusters) < 1:
            raise ValueError(
                f'ClusterHead: expected positive sizes but got in_channels={in_channels}, num_clusters={num_clusters}; '
                'count the known and novel classes'
            )
        self.register_buffer('centre', torch.zeros(num_clusters, in_channels))

    @property
    def num_clusters(self) -> int:
        """C, number of clusters."""
        return len(self.centre)

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits whose largest is that of the nearest centre.

        Args:
            features: (B, D).

        Returns:
            1 - d^2 / 2 with the distance d of unit features and centres, (B, C), in [-1, 1]: the cosine where a
            centre is unit, too.
        """
        return _nearness(features, self.centre)
