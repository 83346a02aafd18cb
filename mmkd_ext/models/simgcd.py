"""The parametric classifier of generalised category discovery (SimGCD).

Shape legend: V views, B batch rows, D dims, K known classes, N novel classes, C = K + N.
"""

from collections.abc import Sequence

from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmkd_ext.functional.simgcd import mean_entropy_gap, self_distillation
from mmkd_ext.models.multi_view import (
    ModuleConfig,
    MultiViewModel,
    Samples,
    batch_labels,
    build_module,
    known_class_loss,
    write_predictions,
)
from mmkd_ext.ops.arguments import check_not_negative, check_positive
from mmkd_ext.ops.distributed import gather_with_grad
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class SimGCD(MultiViewModel):
    r"""One cosine classifier over known and novel classes, taught by labels and by its own sharper predictions.

    With :math:`\lambda` the ``supervised_weight`` of the contrastive head, the objective is

    .. math:: (1 - \lambda) \big( \ell_{distill} + \varepsilon (\log C - H(\bar p)) + \ell_{InfoNCE} \big)
        + \lambda \big( \ell_{CE} + \ell_{SupCon} \big)

    "Parametric Classification for Generalized Category Discovery: A Baseline Study", Wen et al., ICCV 2023, arXiv
    2211.11727. Every image takes part in self-distillation, labelled ones in cross-entropy, too. Prototypes are unit by
    an invariant, as in :class:`mmkd_ext.heads.Prototypes`; the official code has weight normalisation instead.

    Args:
        backbone: See :class:`MultiViewModel`.
        head: Cosine head over all C classes with attribute ``num_classes``, :class:`mmkd_ext.heads.CosineHead`.
        contrastive_head: :class:`mmkd_ext.heads.ContrastiveHead`, as config or module.
        num_known: K; known classes are labelled 0..K-1, unlabelled images -1.
        neck: See :class:`MultiViewModel`.
        temperature: Of predictions, in every loss and in ``pred_score``.
        teacher_temperature: Of the targets of self-distillation; :class:`mmkd_ext.hooks.TeacherTemperatureHook` lowers
            it during the first epochs.
        entropy_weight: epsilon; the paper's 2. The more uneven the classes, the smaller.
        data_preprocessor: See :class:`MultiViewModel`.
        init_cfg: Initialisation, as in mmengine.
        gather: Whether several processes compute what one would with all their images.

    Attributes:
        class_logits (nn.Identity): Passes the logits of all views, (V, 1, B, C), once per forward, to be tapped, as
            those of :class:`mmkd_ext.models.NCDClassifier`: terms of Cr-KD can be added.
    """

    def __init__(
        self,
        backbone: ModuleConfig,
        head: ModuleConfig,
        contrastive_head: ModuleConfig,
        num_known: int,
        neck: ModuleConfig | None = None,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        entropy_weight: float = 2.0,
        data_preprocessor: ModuleConfig | None = None,
        init_cfg: dict | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__(backbone, neck, data_preprocessor, init_cfg)
        check_positive('SimGCD', temperature=temperature, teacher_temperature=teacher_temperature)
        check_not_negative('SimGCD', entropy_weight=entropy_weight)
        self.head = build_module(head)
        self.contrastive_head = build_module(contrastive_head)
        if not 1 <= num_known < self.head.num_classes:
            raise ValueError(
                f'SimGCD: expected num_known from 1 to {self.head.num_classes - 1} but got {num_known}; the head has '
                f'{self.head.num_classes} classes, known and novel'
            )
        self.num_known = num_known
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.entropy_weight = entropy_weight
        self.gather = gather
        self.class_logits = nn.Identity()

    def loss(self, views: Sequence[Tensor], data_samples: Samples | None) -> dict[str, Tensor]:
        """Compute the objective of a batch. In training, prototypes are first made unit in place.

        Args:
            views: V >= 2 tensors (B, c, h, w).
            data_samples: B samples with ``gt_label`` (1,), in 0..K-1, or -1 when unlabelled.

        Returns:
            ``loss_distill``, ``loss_entropy``, ``loss_known``, and those of the contrastive head; weighted scalars.
        """
        self._check_views(views, min_views=2, num_large=2)
        labels = batch_labels(data_samples, num_rows=len(views[0]), num_known=self.num_known, caller='SimGCD')
        if self.training:
            self.normalize_prototypes()
        embedding = self._embed(views)
        logits = self._classify(embedding)
        known = known_class_loss(logits, labels, temperature=self.temperature, gather=self.gather)
        joint = gather_with_grad(logits.transpose(0, 1)).transpose(0, 1) if self.gather else logits
        distill = self_distillation(joint, temperature=self.temperature, teacher_temperature=self.teacher_temperature)
        entropy = mean_entropy_gap(joint, temperature=self.temperature)
        weight = self.contrastive_head.supervised_weight
        return {
            'loss_distill': (1 - weight) * distill,
            'loss_entropy': (1 - weight) * self.entropy_weight * entropy,
            'loss_known': weight * known,
            **self.contrastive_head.loss(embedding, labels),
        }

    def predict(self, views: Sequence[Tensor], data_samples: Samples | None = None) -> list[BaseDataElement]:
        """Classify images.

        Args:
            views: One tensor (B, c, h, w).
            data_samples: B samples to fill; new ones when ``None``.

        Returns:
            B samples as :func:`mmkd_ext.models.multi_view.write_predictions` fills them, for one novel head.
        """
        logits = self._infer(views).squeeze(1)
        return write_predictions(
            data_samples,
            logits,
            num_known=self.num_known,
            temperature=self.temperature,
            head_objective=logits.new_zeros(1),
        )

    def _infer(self, views: Sequence[Tensor]) -> Tensor:
        """Class logits of all views, (V, 1, B, C)."""
        return self._classify(self._embed(views)).unsqueeze(1)

    def _classify(self, embedding_VBD: Tensor) -> Tensor:
        return self.class_logits(self.head(embedding_VBD).unsqueeze(1)).squeeze(1)
