"""What all discovery models have in common: a backbone that sees several views of each image.

Shape legend: V views, B batch rows, D dims.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmkd_ext.heads import Prototypes
from mmkd_ext.registry import MODELS

__all__ = ['ModuleConfig', 'MultiViewModel', 'Samples', 'build_module']

ModuleConfig = nn.Module | dict[str, Any]
Samples = Sequence[BaseDataElement]


def build_module(module: ModuleConfig | None) -> nn.Module | None:
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
