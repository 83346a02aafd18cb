"""What all models of discovery share: several views of an image, labels, targets, predictions.

Shape legend: V views, L large views (the first L of V), H heads, B batch rows, D dims, K known classes, N novel
classes, C = K + N. Labels are 0..K-1, or -1 for an unlabelled row, and live on the CPU, where choosing rows by them
stalls no accelerator.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd_ext.heads import Prototypes
from mmkd_ext.ops.arguments import labels_of_batch
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
