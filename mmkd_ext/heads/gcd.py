"""Heads of generalised category discovery: contrast while features are learned, clusters afterwards.

Shape legend: V views, B batch rows, C clusters, D dims.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd_ext.functional.gcd import info_nce, supervised_contrastive
from mmkd_ext.heads.prototypes import batch_norm
from mmkd_ext.ops.arguments import check_positive, full_precision, unit_rows
from mmkd_ext.ops.distributed import gather_with_grad
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class ContrastiveHead(BaseModule):
    r"""Trains features by :math:`(1 - \lambda)` InfoNCE of all images and :math:`\lambda` of labelled ones by class.

    The losses see the output of a small MLP, [linear, batch norm, ReLU] and a linear, which is thrown away afterwards:
    clusters are looked for in the features before it. From GCD, arXiv 2201.02609, Eq. 3, and SimGCD, arXiv 2211.11727,
    Eq. 1, with :math:`\lambda = 0.35`; their projection has one more hidden layer and GELU.

    Args:
        in_channels: Dimension of the features.
        hidden_channels: Width of the hidden layer.
        out_channels: Dimension that the losses see.
        temperature: Of :func:`mmkd_ext.functional.info_nce`.
        supervised_temperature: Of :func:`mmkd_ext.functional.supervised_contrastive`.
        supervised_weight: lambda, in [0, 1].
        gather: Whether several processes compute what one would with all their images: each sees those of all.
        init_cfg: Initialisation, as in mmengine; torch's own by default.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 2048,
        out_channels: int = 256,
        temperature: float = 1.0,
        supervised_temperature: float = 0.07,
        supervised_weight: float = 0.35,
        gather: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_positive('ContrastiveHead', temperature=temperature, supervised_temperature=supervised_temperature)
        if not 0 <= supervised_weight <= 1:
            raise ValueError(
                f'ContrastiveHead: expected supervised_weight in [0, 1] but got {supervised_weight}; the papers take '
                '0.35'
            )
        self.temperature = temperature
        self.supervised_temperature = supervised_temperature
        self.supervised_weight = supervised_weight
        self.gather = gather
        self.layers = nn.Sequential(
            nn.Linear(in_channels, hidden_channels),
            nn.BatchNorm1d(hidden_channels),
            nn.ReLU(),
            nn.Linear(hidden_channels, out_channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Project features.

        Args:
            features: (V, B, in_channels); batch statistics are those of all views.

        Returns:
            (V, B, out_channels), not normalised.
        """
        x = features.flatten(0, 1)
        for layer in self.layers:
            x = batch_norm('ContrastiveHead', layer, x) if isinstance(layer, _BatchNorm) else layer(x)
        return x.unflatten(0, features.shape[:2])

    def loss(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute both losses, weighted.

        Args:
            features: Features of all views, (V, B, in_channels), V >= 2.
            labels: (B,), int64, -1 for unlabelled images.

        Returns:
            ``loss_info_nce`` and ``loss_supervised_contrastive``, scalars.
        """
        embedding = self(features)
        labels = labels.to(embedding.device, non_blocking=True)
        if self.gather:
            embedding = gather_with_grad(embedding.transpose(0, 1)).transpose(0, 1)
            labels = gather_with_grad(labels)
        supervised = supervised_contrastive(embedding, labels, temperature=self.supervised_temperature)
        return {
            'loss_info_nce': (1 - self.supervised_weight) * info_nce(embedding, temperature=self.temperature),
            'loss_supervised_contrastive': self.supervised_weight * supervised,
        }


# --------------------------------------------------------------------------------------------------
# Classes that were found by clustering, as a head.


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
