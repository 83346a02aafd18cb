"""UNO, the student of Cr-KD: known and novel classes in one classifier.

Shape legend: V views, L large views (the first L of V), H heads, B batch rows, D dims, K known classes, N novel
classes, C = K + N.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmkd_ext.functional import sinkhorn_knopp, swapped_prediction
from mmkd_ext.heads import NovelHead
from mmkd_ext.models.multi_view import (
    ModuleConfig,
    MultiViewModel,
    Samples,
    batch_labels,
    build_module,
    discovery_targets,
    known_class_loss,
    write_predictions,
)
from mmkd_ext.ops.arguments import check_choice, check_positive
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class NCDClassifier(MultiViewModel):
    """Classifier of known classes that discovers novel ones in unlabelled images: UNO, and the student of Cr-KD.

    One class serves both stages, so a checkpoint of the first loads into the second as it is. Without ``novel_head``
    it learns known classes from labelled rows (stage 1). With it, labelled rows keep their labels, unlabelled rows get
    Sinkhorn assignments to novel classes, and each view predicts the targets of the others, over all C classes (UNO,
    "A Unified Objective for Novel Class Discovery", arXiv 2108.08536, eq. 2 to 6; stage 2). An unlabelled row is one
    with ``gt_label == -1``; known classes are labelled 0..K-1.

    Cr-KD (arXiv 2307.09158) adds one term by ``DistillHook``, which taps ``class_logits`` here and in the teacher.

    Args:
        backbone: Any backbone, config or module. Its output, after the neck, must be (rows, D); of a tuple the last.
        known_head: Head of the known classes with attribute ``num_classes``, :class:`mmkd_ext.heads.CosineHead`.
        neck: Pooling for a backbone that yields maps.
        novel_head: :class:`mmkd_ext.heads.NovelHead`; ``None`` for stage 1.
        overcluster_head: A second novel head with more prototypes, trained by the same objective in its own classes,
            total (L + L_over) / 2 (UNO v2). Unused at prediction.
        temperature: tau, divisor of cosine logits in every softmax.
        num_large_views: L, views whose targets are learnt; smaller crops only learn them.
        sinkhorn: Keyword arguments of :func:`mmkd_ext.functional.sinkhorn_knopp`.
        data_preprocessor: :class:`mmkd_ext.models.MultiViewDataPreprocessor`, as config or module.
        init_cfg: Initialisation, as in mmengine.
        gather: Whether several processes compute what one would with all their rows: assignments over the unlabelled
            rows of all processes, means over all rows. False leaves each process its own.
        assign_to: Classes that unlabelled images may be of: ``'novel'``, or ``'all'`` in the generalised setting (GCD).

    Attributes:
        embedding (nn.Identity): Passes the features of all views that run, (V * B, D), view by view, once per forward.
        class_logits (nn.Identity): Passes the logits of the large views, known classes first, (L, H, B, C), once per
            forward; (L, 1, B, K) without novel head. Both exist to be tapped.
    """

    def __init__(
        self,
        backbone: ModuleConfig,
        known_head: ModuleConfig,
        neck: ModuleConfig | None = None,
        novel_head: ModuleConfig | None = None,
        overcluster_head: ModuleConfig | None = None,
        temperature: float = 0.1,
        num_large_views: int = 2,
        sinkhorn: dict[str, Any] | None = None,
        data_preprocessor: ModuleConfig | None = None,
        init_cfg: dict | None = None,
        gather: bool = True,
        assign_to: str = 'novel',
    ) -> None:
        super().__init__(backbone, neck, data_preprocessor, init_cfg)
        check_choice('NCDClassifier', ('novel', 'all'), assign_to=assign_to)
        check_positive('NCDClassifier', temperature=temperature, num_large_views=num_large_views)
        if overcluster_head is not None and novel_head is None:
            raise ValueError('NCDClassifier: expected overcluster_head with a novel_head but got it alone; give both')
        sinkhorn = {'gather': gather, **(sinkhorn or {})}
        inspect.signature(sinkhorn_knopp).bind(None, **sinkhorn)  # a wrong key fails here, not in mid-training
        self.gather = gather
        self.assign_to = assign_to
        self.assign = functools.partial(sinkhorn_knopp, **sinkhorn)
        self.temperature = temperature
        self.num_large_views = num_large_views
        self.known_head = build_module(known_head)
        self.novel_head = build_module(novel_head)
        self.overcluster_head = build_module(overcluster_head)
        self.class_logits = nn.Identity()

    @property
    def num_known(self) -> int:
        """K, number of known classes."""
        return self.known_head.num_classes

    def loss(self, views: Sequence[Tensor], data_samples: Samples | None) -> dict[str, Tensor]:
        """Compute the objective of a batch. In training, prototypes are first made unit in place, as in UNO.

        Args:
            views: V tensors (B, c, h, w), large views first.
            data_samples: B samples with ``gt_label`` (1,), in 0..K-1, or -1 when unlabelled.

        Returns:
            Stage 1: ``loss_known``. Stage 2: ``loss_cluster``; with over-clustering half of each objective, as
            ``loss_cluster`` and ``loss_overcluster``. Each (), finite and differentiable for any mixture of rows.
        """
        large_views = self._large(views)
        labels = batch_labels(data_samples, num_rows=len(large_views[0]), num_known=self.num_known)
        if self.training:
            self.normalize_prototypes()
        embedding = self._embed(views)
        known_logits = self.known_head(embedding)
        logits = self._join(known_logits, embedding, self.novel_head)
        self.class_logits(logits[: self.num_large_views])  # for whoever taps it
        if self.novel_head is None:
            loss = known_class_loss(logits.squeeze(1), labels, temperature=self.temperature, gather=self.gather)
            return {'loss_known': loss}
        loss_cluster = self._discover(logits, labels, self.novel_head)
        if self.overcluster_head is None:
            return {'loss_cluster': loss_cluster}
        over_logits = self._join(known_logits, embedding, self.overcluster_head)
        loss_overcluster = self._discover(over_logits, labels, self.overcluster_head)
        return {'loss_cluster': loss_cluster / 2, 'loss_overcluster': loss_overcluster / 2}

    def predict(self, views: Sequence[Tensor], data_samples: Samples | None = None) -> list[BaseDataElement]:
        """Classify images.

        Args:
            views: One tensor (B, c, h, w).
            data_samples: B samples to fill; new ones when ``None``.

        Returns:
            B samples with ``known_logits`` (K,), ``pred_score`` (C,), probabilities at the temperature, and
            ``pred_label`` (1,). With a novel head also ``novel_logits`` (H, N) and ``head_objective`` (H,), the mean
            training objective of each head (lower is better, NaN when never trained); the scores are then those of
            the head with the lowest objective.
        """
        logits_HBC = self._infer(views).squeeze(0)
        head = self.novel_head
        return write_predictions(
            data_samples,
            logits_HBC,
            num_known=self.num_known,
            temperature=self.temperature,
            best_head=None if head is None else head.best_head,
            head_objective=None if head is None else head.mean_objective,
        )

    def _infer(self, views: Sequence[Tensor]) -> Tensor:
        """Class logits of the large views, (L, H, B, C) or (L, 1, B, K); a view that is alone is a large one."""
        embedding = self._embed(self._large(views) if len(views) > 1 else views)
        return self.class_logits(self._join(self.known_head(embedding), embedding, self.novel_head))

    def _discover(self, logits_VHBC: Tensor, labels_B: Tensor, head: NovelHead) -> Tensor:
        targets_VHBC = discovery_targets(
            logits_VHBC,
            labels_B,
            num_known=self.num_known,
            num_large=self.num_large_views,
            assign=self.assign,
            assign_to=self.assign_to,
        )
        loss_H = swapped_prediction(
            logits_VHBC,
            targets_VHBC,
            num_large=self.num_large_views,
            temperature=self.temperature,
            gather=self.gather,
        )
        if self.training:
            head.update_objective(loss_H)
        return loss_H.mean()

    @staticmethod
    def _join(known_VBK: Tensor, embedding_VBD: Tensor, novel_head: NovelHead | None) -> Tensor:
        """Logits over known and novel classes: (V, H, B, C), or (V, 1, B, K) without novel head."""
        known_V1BK = known_VBK.unsqueeze(1)
        if novel_head is None:
            return known_V1BK
        # View by view: batch statistics of a projector belong to one view, as in the official code.
        novel_VHBN = torch.stack([novel_head(view_BD) for view_BD in embedding_VBD])
        known_VHBK = known_V1BK.expand(-1, novel_VHBN.shape[1], -1, -1)
        return torch.cat([known_VHBK, novel_VHBN], dim=-1)

    def _large(self, views: Sequence[Tensor]) -> Sequence[Tensor]:
        # Swapping predictions takes two views, be one of them small.
        min_views = self.num_large_views if self.novel_head is None else max(self.num_large_views, 2)
        self._check_views(views, min_views, self.num_large_views)
        return views[: self.num_large_views]
