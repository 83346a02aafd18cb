"""UNO, the student of Cr-KD, and what all models of discovery share: several views, labels, targets, predictions.

Shape legend: V views, L large views (the first L of V), H heads, B batch rows, D dims, K known classes, N novel
classes, C = K + N. Labels are 0..K-1, or -1 for an unlabelled row, and live on the CPU, where choosing rows by them
stalls no accelerator.
"""

import functools
import inspect
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd_ext.functional import sinkhorn_knopp, swapped_prediction
from mmkd_ext.heads import NovelHead, Prototypes
from mmkd_ext.ops.arguments import check_choice, check_positive, labels_of_batch
from mmkd_ext.ops.distributed import joint_count, sum_with_grad
from mmkd_ext.registry import MODELS


def batch_labels(
    data_samples: Sequence[BaseDataElement] | None, *, num_rows: int, num_known: int, caller: str = 'NCDClassifier'
) -> Tensor:
    """Collect the labels of a training batch on the CPU.

    ``MultiViewDataPreprocessor`` leaves them there; those of another preprocessor are copied back.

    Args:
        data_samples: B samples with ``gt_label`` (1,), int64, in 0..K-1, or -1 when unlabelled.
        num_rows: B, images in each view.
        num_known: K.
        caller: Model that speaks in the error.

    Returns:
        (B,), int64.

    Raises:
        TypeError: Samples or labels are missing.
        ValueError: The number of labels is not B, or a label is not below K.
    """
    labels_B = labels_of_batch(data_samples)
    if labels_B is None:
        raise TypeError(
            f'{caller}: expected data_samples with gt_label (-1 when unlabelled) to compute a loss but some are '
            'missing; end the pipeline with PackInputs'
        )
    labels_B = labels_B.cpu()
    if len(labels_B) != num_rows:
        raise ValueError(
            f'{caller}: expected one label per row but got {len(labels_B)} labels for {num_rows} rows; '
            'use single-label samples'
        )
    if int(labels_B.max()) >= num_known:
        raise ValueError(
            f'{caller}: expected labels below the {num_known} known classes but got {int(labels_B.max())}: '
            'a label of an unlabelled class reached training; wrap the dataset in NovelClassSplit with hide_labels=True'
        )
    return labels_B


def known_class_loss(logits_VBK: Tensor, labels_B: Tensor, *, temperature: float, gather: bool = False) -> Tensor:
    """Cross-entropy of the labelled rows, averaged over views: the supervised stage of UNO and Cr-KD.

    Args:
        logits_VBK: (V, B, K), cosines, float32 or float64.
        labels_B: (B,), int64 on the CPU, -1 for unlabelled rows, which do not count.
        temperature: tau, divisor of the logits.
        gather: Average over the labelled rows of all processes.

    Returns:
        (), nats; a differentiable 0 when no row is labelled.
    """
    num_views, _, _ = logits_VBK.shape
    num_labelled = int((labels_B >= 0).sum())
    labels = labels_B.to(logits_VBK.device, non_blocking=True).repeat(num_views)
    loss = F.cross_entropy(logits_VBK.flatten(0, 1) / temperature, labels, ignore_index=-1, reduction='sum')
    if gather:
        return sum_with_grad(loss) / (num_views * joint_count(num_labelled, loss))
    return loss / (num_views * max(num_labelled, 1))


@torch.no_grad()
def discovery_targets(
    logits_VHBC: Tensor,
    labels_B: Tensor,
    *,
    num_known: int,
    num_large: int,
    assign: Callable[[Tensor], Tensor],
    assign_to: str = 'novel',
) -> Tensor:
    """Soft targets of UNO (arXiv 2108.08536, eq. 4 and 5): one-hot for labelled rows, an assignment for the others.

    Each large view and head assigns the unlabelled rows of the batch to novel classes on its own; known classes get
    probability 0. In the generalised setting (``assign_to='all'``) an unlabelled image may be of a known class, so it
    is assigned to all classes. Labelled rows then take part in the assignment, though not in its result: classes are to
    be balanced over the whole batch, and known ones are rarer among its unlabelled rows.

    Args:
        logits_VHBC: (V, H, B, C), known classes first.
        labels_B: (B,), int64 on the CPU, -1 for unlabelled rows.
        num_known: K.
        num_large: L; targets of the other views are zero, nothing learns from them.
        assign: Maps novel logits (L, H, U, C - K) to probabilities, for U >= 0 unlabelled rows; with
            ``assign_to='all'`` all logits (L, H, B, C).
        assign_to: Classes that unlabelled rows may get, ``'novel'`` or ``'all'``.

    Returns:
        (V, H, B, C), rows of large views sum to 1; dtype and device of the logits.
    """
    device, num_classes = logits_VHBC.device, logits_VHBC.shape[-1]
    unlabelled_U = (labels_B < 0).nonzero().squeeze(1).to(device, non_blocking=True)
    labels_B1 = labels_B.to(device, non_blocking=True).unsqueeze(1)
    targets_VHBC = torch.zeros_like(logits_VHBC)
    targets_VHBC[:num_large] = labels_B1 == torch.arange(num_classes, device=device)
    if assign_to == 'all':
        assigned_LHBC = assign(logits_VHBC[:num_large])
        targets_VHBC[:num_large, :, unlabelled_U] = assigned_LHBC[:, :, unlabelled_U].to(targets_VHBC.dtype)
        return targets_VHBC
    novel_LHUN = logits_VHBC[:num_large, :, unlabelled_U, num_known:]
    targets_VHBC[:num_large, :, unlabelled_U, num_known:] = assign(novel_LHUN).to(targets_VHBC.dtype)
    return targets_VHBC


def write_predictions(
    data_samples: Sequence[BaseDataElement] | None,
    logits_HBC: Tensor,
    *,
    num_known: int,
    temperature: float,
    best_head: Tensor | None = None,
    head_objective: Tensor | None = None,
) -> list[BaseDataElement]:
    """Fill samples with what metrics and the report read, from the logits of one image each.

    Args:
        data_samples: B samples to fill; new ones when ``None``.
        logits_HBC: (H, B, C), known classes first; C = K of a model that knows no novel classes.
        num_known: K.
        temperature: tau of the scores.
        best_head: Index of the head whose scores are shown, (), on the device; the first by default.
        head_objective: Training objective of each head, (H,), lower is better; with it ``novel_logits`` are written.

    Returns:
        B samples with ``known_logits`` (K,), ``pred_score`` (C,), ``pred_label`` (1,) and, where there are novel
        classes, ``novel_logits`` (H, N) and ``head_objective`` (H,).
    """
    samples = list(data_samples) if data_samples is not None else [BaseDataElement() for _ in logits_HBC[0]]
    best_BC = logits_HBC[0] if best_head is None else logits_HBC.index_select(0, best_head.view(1)).squeeze(0)
    scores_BC = (best_BC / temperature).softmax(dim=-1)
    for sample, logits_HC, score_C in zip(samples, logits_HBC.unbind(1), scores_BC, strict=True):
        if head_objective is not None:
            sample.novel_logits = logits_HC[:, num_known:]
            sample.head_objective = head_objective
        sample.known_logits = logits_HC[0, :num_known]
        sample.pred_score = score_C
        sample.pred_label = score_C.argmax(dim=-1, keepdim=True)
    return samples


# --------------------------------------------------------------------------------------------------
# What all discovery models have in common: a backbone that sees several views of each image.

ModuleConfig = nn.Module | dict[str, Any]
Samples = Sequence[BaseDataElement]


def build_module(module: ModuleConfig | None) -> Any:
    """Build a part of a model from its config; a module, or ``None``, is returned as it is."""
    return MODELS.build(module) if isinstance(module, dict) else module


class MultiViewModel(BaseModel):
    """Backbone, neck and tap of a model that is trained with several views and evaluated with one.

    A model of this kind defines ``loss(views, data_samples)``, ``predict(views, data_samples)`` and ``_infer(views)``,
    what ``mode='tensor'`` returns.

    Args:
        backbone: Any backbone, config or module. Its output, after the neck, must be (rows, D); of a tuple the last.
        neck: Pooling for a backbone that yields maps.
        data_preprocessor: :class:`mmkd_ext.models.MultiViewDataPreprocessor`, as config or module.
        init_cfg: Initialisation, as in mmengine.

    Attributes:
        embedding (nn.Identity): Passes the features of all views that run, (V * B, D), view by view, once per forward;
            to be tapped.
    """

    def __init__(
        self,
        backbone: ModuleConfig,
        neck: ModuleConfig | None = None,
        data_preprocessor: ModuleConfig | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(build_module(data_preprocessor), init_cfg)
        self.backbone = build_module(backbone)
        self.neck = build_module(neck)
        self.embedding = nn.Identity()

    def forward(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Samples | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[BaseDataElement]:
        """Run the model in one of mmengine's modes.

        Args:
            inputs: Views of one batch, each (B, c, h, w), large views first; or one tensor, a single large view.
            data_samples: B samples. ``'loss'`` reads ``gt_label`` (1,); ``'predict'`` fills them.
            mode: ``'loss'``, ``'tensor'`` or ``'predict'``.

        Returns:
            For ``'loss'`` the losses by name (``loss``); for ``'predict'`` the samples (``predict``); for ``'tensor'``
            a tensor that the class describes.

        Raises:
            ValueError: Unknown mode, too few views, views of different batches, or labels that cannot be trained on.
            TypeError: Samples without labels.
            RuntimeError: The backbone and neck yield no vectors.
        """
        views = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if mode == 'loss':
            return self.loss(views, data_samples)
        if mode == 'tensor':
            return self._infer(views)
        if mode == 'predict':
            if len(views) != 1:
                raise ValueError(
                    f'{self._who}: expected one image per sample to predict but got {len(views)} views; '
                    'use a pipeline without MultiView for evaluation'
                )
            return self.predict(views, data_samples)
        raise ValueError(f"{self._who}: expected mode 'loss', 'tensor' or 'predict' but got {mode!r}; use one of these")

    def normalize_prototypes(self) -> None:
        """Make the prototypes of all heads unit, in place."""
        for module in self.modules():
            if isinstance(module, Prototypes):
                module.normalize_()

    @property
    def _who(self) -> str:
        return type(self).__name__

    def _embed(self, views: Sequence[Tensor]) -> Tensor:
        """Features of all views (V, B, D), with one forward of the backbone per image size."""
        views_of_size = defaultdict(list)
        for index, view in enumerate(views):
            views_of_size[view.shape[1:]].append(index)
        features: dict[int, Tensor] = {}
        for indices in views_of_size.values():
            rows = self._features(torch.cat([views[index] for index in indices]))
            features.update(zip(indices, rows.chunk(len(indices)), strict=True))
        rows = self.embedding(torch.cat([features[index] for index in range(len(views))]))
        return rows.unflatten(0, (len(views), -1))

    def _features(self, images: Tensor) -> Tensor:
        output = self.backbone(images)
        output = self.neck(output) if self.neck is not None else output
        features = output[-1] if isinstance(output, (tuple, list)) else output
        if not isinstance(features, Tensor) or features.dim() != 2:
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise RuntimeError(
                f'{self._who}: expected features (rows, D) from backbone and neck but got {found}; '
                "add neck=dict(type='GlobalAveragePooling') to a CNN, out_type='cls_token' to a ViT"
            )
        return features

    def _check_views(self, views: Sequence[Tensor], min_views: int, num_large: int) -> None:
        if len(views) < min_views:
            raise ValueError(
                f'{self._who}: expected at least {min_views} views, {num_large} of them large, but got '
                f'{len(views)}; set num_views of MultiView in the training pipeline'
            )
        batch_sizes = [len(view) for view in views]
        if len(set(batch_sizes)) > 1:
            raise ValueError(
                f'{self._who}: expected views of one batch but got {batch_sizes} rows; collate with default_collate'
            )


# --------------------------------------------------------------------------------------------------
# The classifier of novel class discovery.


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
