"""Representation learning and clustering of generalised category discovery (GCD).

Shape legend: V views, B batch rows, K known classes, C clusters.
"""

from collections.abc import Sequence

from mmengine.structures import BaseDataElement
from torch import Tensor

from mmkd_ext.heads.embedding_head import write_embeddings
from mmkd_ext.models.multi_view import (
    ModuleConfig,
    MultiViewModel,
    Samples,
    batch_labels,
    build_module,
    write_predictions,
)
from mmkd_ext.ops.arguments import check_positive
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class GCD(MultiViewModel):
    """Learns features by contrast, of labelled images also by class; classes are found by clustering them afterwards.

    "Generalized Category Discovery", Vaze et al., CVPR 2022, arXiv 2201.02609. The contrast knows nothing of the number
    of classes, so the features serve to estimate it, too: tap ``embedding``, in evaluation mode, and hand it to
    :func:`mmkd_ext.functional.estimate_num_classes` (``mmkd num-classes`` does that).

    With ``cluster_head``, :class:`mmkd_ext.hooks.ClusterHook` runs semi-supervised k-means over the training images and
    leaves the centres in the head; then this model predicts as :class:`mmkd_ext.models.NCDClassifier` does.

    Args:
        backbone: See :class:`MultiViewModel`.
        contrastive_head: :class:`mmkd_ext.heads.ContrastiveHead`, as config or module.
        num_known: K; known classes are labelled 0..K-1, unlabelled images -1.
        neck: See :class:`MultiViewModel`.
        cluster_head: :class:`mmkd_ext.heads.ClusterHead`, K known clusters first; ``None`` for features alone.
        score_temperature: Divisor of the logits in the softmax of ``pred_score``.
        data_preprocessor: See :class:`MultiViewModel`.
        init_cfg: Initialisation, as in mmengine.

    Raises:
        ValueError: ``num_known`` is not positive or more than there are clusters, or the temperature is not positive.
    """

    def __init__(
        self,
        backbone: ModuleConfig,
        contrastive_head: ModuleConfig,
        num_known: int,
        neck: ModuleConfig | None = None,
        cluster_head: ModuleConfig | None = None,
        score_temperature: float = 0.1,
        data_preprocessor: ModuleConfig | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(backbone, neck, data_preprocessor, init_cfg)
        check_positive('GCD', num_known=num_known, score_temperature=score_temperature)
        self.num_known = num_known
        self.score_temperature = score_temperature
        self.contrastive_head = build_module(contrastive_head)
        self.cluster_head = build_module(cluster_head)
        if self.cluster_head is not None and self.cluster_head.num_clusters < num_known:
            raise ValueError(
                f'GCD: expected at least as many clusters as known classes, {num_known}, but got '
                f'{self.cluster_head.num_clusters}; count novel and known classes in num_clusters'
            )

    def loss(self, views: Sequence[Tensor], data_samples: Samples | None) -> dict[str, Tensor]:
        """Compute the contrastive objective of a batch.

        Args:
            views: V >= 2 tensors (B, c, h, w).
            data_samples: B samples with ``gt_label`` (1,), in 0..K-1, or -1 when unlabelled.

        Returns:
            ``loss_info_nce`` and ``loss_supervised_contrastive``, scalars.
        """
        self._check_views(views, min_views=2, num_large=2)
        labels = batch_labels(data_samples, num_rows=len(views[0]), num_known=self.num_known, caller='GCD')
        return self.contrastive_head.loss(self._embed(views), labels)

    def predict(self, views: Sequence[Tensor], data_samples: Samples | None = None) -> list[BaseDataElement]:
        """Embed images, and with a cluster head classify them.

        Args:
            views: One tensor (B, c, h, w).
            data_samples: B samples to fill; new ones when ``None``.

        Returns:
            B samples with ``embedding`` (D,) or, with a cluster head, what
            :func:`mmkd_ext.models.multi_view.write_predictions` writes, for one novel head.
        """
        embedding_BD = self._embed(views).squeeze(0)
        if self.cluster_head is None:
            return write_embeddings(data_samples, embedding_BD)
        logits_BC = self.cluster_head(embedding_BD)
        return write_predictions(
            data_samples,
            logits_BC.unsqueeze(0),
            num_known=self.num_known,
            temperature=self.score_temperature,
            head_objective=logits_BC.new_zeros(1),
        )

    def _infer(self, views: Sequence[Tensor]) -> Tensor:
        """Cluster logits of all views, (V, B, C), or their features (V, B, D) without a cluster head."""
        embedding = self._embed(views)
        if self.cluster_head is None:
            return embedding
        return self.cluster_head(embedding.flatten(0, 1)).unflatten(0, embedding.shape[:2])
