"""Head of metric learning: what is compared by its distance."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmkd_ext.ops.arguments import full_precision, labels_of_batch, unit_rows
from mmkd_ext.registry import MODELS


def write_embeddings(data_samples: Sequence[BaseDataElement] | None, embedding_BD: Tensor) -> list[BaseDataElement]:
    """Give B samples, or new ones, their ``embedding`` (D,)."""
    samples = [BaseDataElement() for _ in embedding_BD] if data_samples is None else list(data_samples)
    for sample, embedding_D in zip(samples, embedding_BD, strict=True):
        sample.embedding = embedding_D
    return samples


class _UnitRows(nn.Module):
    """Scales vectors to length 1, of half precision in float32; a module, so that it can be tapped."""

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        return unit_rows(x)


@MODELS.register_module()
class EmbeddingHead(BaseModule):
    """Linear map to an embedding; for ``ImageClassifier`` of mmpretrain in place of its classification head.

    ``normalize`` says which embedding the task's loss and evaluation see. What distillation sees is a choice of its
    own, by tap: ``'head.fc'`` is the embedding as it comes, ``'head.normalized'`` the one of length 1. Both are always
    computed. In the recipes of RKD (Park et al., CVPR 2019, arXiv 1904.05068, Section 4.1) the teacher is normalised
    and the student is not: ``dict(student='head.fc', teacher='head.normalized', ...)``.

    Args:
        in_channels: Dimension of the pooled features.
        embedding_dims: D, dimension of the embedding.
        normalize: Whether embeddings are scaled to length 1 for the task and for evaluation.
        loss: The task, :class:`mmkd_ext.TripletLoss` or :class:`mmkd_ext.ContrastiveLoss`, or its config. None to train
            by the terms of :class:`mmkd_ext.DistillHook` alone, as students of RKD are.
        init_cfg: Initialisation, as in mmengine; torch's own by default.

    Attributes:
        fc (nn.Linear): Its output is the embedding as it comes, (B, D).
        normalized (nn.Module): Its output is the embedding of length 1, (B, D), at least float32.
    """

    def __init__(
        self,
        in_channels: int,
        embedding_dims: int,
        normalize: bool = True,
        loss: nn.Module | dict[str, Any] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.fc = nn.Linear(in_channels, embedding_dims)
        self.normalized = _UnitRows()
        self.normalize = normalize
        self.loss_module = MODELS.build(loss) if isinstance(loss, dict) else loss

    def forward(self, features: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Embed features.

        Args:
            features: Pooled features (B, C), or a tuple whose last item they are.

        Returns:
            (B, D), of length 1 with ``normalize``.
        """
        embedding = self.fc(features[-1] if isinstance(features, (tuple, list)) else features)
        unit_embedding = self.normalized(embedding)
        return unit_embedding if self.normalize else embedding

    def loss(self, features: Tensor | tuple[Tensor, ...], data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
        """Compute the task's loss.

        Args:
            features: As in :meth:`forward`.
            data_samples: B samples with ``gt_label`` (1,); not looked at without a task.

        Returns:
            ``loss_metric``, a scalar; nothing without a task.

        Raises:
            TypeError: Samples without a label.
        """
        embedding = self(features)
        if self.loss_module is None:
            return {}
        labels = labels_of_batch(data_samples)
        if labels is None:
            raise TypeError(
                'EmbeddingHead: expected data_samples with gt_label to compute a loss but some have none; '
                'use a labelled data set and end the pipeline with PackInputs'
            )
        return {'loss_metric': self.loss_module(embedding, labels)}

    def predict(
        self, features: Tensor | tuple[Tensor, ...], data_samples: Sequence[BaseDataElement] | None = None
    ) -> list[BaseDataElement]:
        """Embed images.

        Args:
            features: As in :meth:`forward`.
            data_samples: B samples to fill; new ones when ``None``.

        Returns:
            B samples with ``embedding`` (D,), for :class:`mmkd_ext.RetrievalMetric`.
        """
        return write_embeddings(data_samples, self(features))
