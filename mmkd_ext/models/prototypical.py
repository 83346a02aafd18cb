"""The few-shot learner that other few-shot learners are compared with.

Shape legend: B batch rows, c channels, h and w pixels, D dims.
"""

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmkd_ext.functional.prototypical import prototypical_loss
from mmkd_ext.heads.embedding_head import write_embeddings
from mmkd_ext.models.multi_view import ModuleConfig, Samples, build_module
from mmkd_ext.ops.arguments import labels_of_batch
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class PrototypicalNetwork(BaseModel):
    """Learns an embedding in which a class is the mean of a few examples (arXiv 1703.05175).

    A training batch is an episode: of each class in it, the first ``num_shots`` samples are shots and the others
    queries (:func:`~mmkd_ext.functional.prototypical_loss`). ``EpisodeBatchSampler`` makes such batches. Evaluation
    embeds every image once, as in evaluation mode no image depends on another, and ``FewShotMetric`` plays episodes
    with the embeddings.

    Args:
        backbone: Any backbone, config or module; of a tuple of maps the last is used.
        num_shots: K, shots of each class in a training batch.
        neck: What follows the map, such as :class:`~mmkd_ext.models.MaxPooling`. Its output is flattened: (B, D).
        data_preprocessor: :class:`~mmkd_ext.models.MultiViewDataPreprocessor`, as config or module.
        init_cfg: Initialisation, as in mmengine.

    Attributes:
        embedding (nn.Flatten): Yields the embedding, (B, D), once per forward; to be tapped by ``DistillHook``.
    """

    def __init__(
        self,
        backbone: ModuleConfig,
        num_shots: int = 1,
        neck: ModuleConfig | None = None,
        data_preprocessor: ModuleConfig | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(build_module(data_preprocessor), init_cfg)
        if num_shots < 1:
            raise ValueError(f'PrototypicalNetwork: expected num_shots >= 1 but got {num_shots}; a class needs a shot')
        self.num_shots = num_shots
        self.backbone = build_module(backbone)
        self.neck = build_module(neck)
        self.embedding = nn.Flatten()

    def forward(
        self, inputs: Tensor, data_samples: Samples | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[BaseDataElement]:
        """Run the model in one of mmengine's modes.

        Args:
            inputs: (B, c, h, w).
            data_samples: B samples. ``'loss'`` reads ``gt_label`` (1,); ``'predict'`` fills them.
            mode: ``'loss'``, ``'tensor'`` or ``'predict'``.

        Returns:
            For ``'loss'`` a dict with ``loss_episode``, a scalar; for ``'tensor'`` the embedding (B, D); for
            ``'predict'`` the samples with ``embedding`` (D,), new ones where none were given.

        Raises:
            ValueError: Unknown mode.
            TypeError: Samples without labels.
        """
        if mode == 'loss':
            labels = labels_of_batch(data_samples)
            if labels is None:
                raise TypeError(
                    'PrototypicalNetwork: expected data_samples with gt_label to compute a loss but some are missing; '
                    'end the pipeline with PackInputs'
                )
            labels = labels.to(inputs.device, non_blocking=True)
            return {'loss_episode': prototypical_loss(self._embed(inputs), labels, self.num_shots)}
        if mode == 'tensor':
            return self._embed(inputs)
        if mode == 'predict':
            return write_embeddings(data_samples, self._embed(inputs))
        raise ValueError(
            f"PrototypicalNetwork: expected mode 'loss', 'tensor' or 'predict' but got {mode!r}; use one of these"
        )

    def _embed(self, images: Tensor) -> Tensor:
        # The layout in which a CPU convolves in half the time.
        output = self.backbone(images.contiguous(memory_format=torch.channels_last))
        output = output[-1] if isinstance(output, (tuple, list)) else output
        return self.embedding(output if self.neck is None else self.neck(output))
