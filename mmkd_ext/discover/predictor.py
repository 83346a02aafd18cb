"""Runs a trained model of discovery over images.

Suffixes: N images, D dims, K known classes, C known and novel classes, H heads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mmkd_ext.distill import Recorder
from mmkd_ext.evaluation import best_head
from mmkd_ext.functional.pictures import read_square
from mmkd_ext.models.build import load_weights
from mmkd_ext.registry import MODELS

__all__ = ['PictureInput', 'Predictions', 'Predictor']

PictureInput = str | Path | np.ndarray | Image.Image
"""A file, an open image, or pixels: uint8, grey (height, width) or RGB (height, width, 3)."""


@dataclass(frozen=True)
class Predictions:
    """What a model says about N images.

    Attributes:
        embedding_ND: Features, float32.
        scores_NC: Probabilities, known classes first, rows sum to 1; of the head with the lowest training objective.
        cosine_NC: Cosine to the prototype of each class, in [-1, 1], of the same head.
    """

    embedding_ND: np.ndarray
    scores_NC: np.ndarray
    cosine_NC: np.ndarray


class Predictor:
    """A model of discovery in evaluation mode, with the way in which it wants its images.

    Args:
        cfg: With ``model``, ``image_side``, ``image_crop`` and ``test_pipeline``, as
            :mod:`mmkd_ext.discover.configs` makes it.
        weights: Checkpoint, loaded safely.
        device: Where the model runs; the accelerator, if there is one, by default.
    """

    def __init__(self, cfg: Config, weights: str | Path, device: str | None = None) -> None:
        self.device = device or get_device()
        model = cfg.model.to_dict()
        model['backbone'] = {key: value for key, value in model['backbone'].items() if key != 'init_cfg'}
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            self.model = MODELS.build(model)
            self.pipeline = Compose(cfg.test_pipeline)
        load_weights(self.model, weights, who='Predictor')
        self.model.to(self.device).eval()
        self.side, self.crop = cfg.image_side, cfg.image_crop
        self.num_workers = cfg.train_dataloader.num_workers

    def embed(self, pictures: Sequence[PictureInput], batch_size: int = 256) -> np.ndarray:
        """Return the features of images, (N, D) float32."""
        return np.concatenate([embedding.numpy() for _, embedding in self._run(pictures, batch_size)])

    def classify(self, pictures: Sequence[PictureInput], batch_size: int = 256) -> Predictions:
        """Return classes and features of images; for a model with known and novel classes, or with known ones alone."""
        parts = [
            (
                embedding,
                torch.stack([sample.pred_score for sample in samples]),
                torch.stack(list(map(_cosine, samples))),
            )
            for samples, embedding in self._run(pictures, batch_size)
        ]
        return Predictions(*(torch.cat(column).float().cpu().numpy() for column in zip(*parts, strict=True)))

    @torch.no_grad()
    def _run(
        self, pictures: Sequence[PictureInput], batch_size: int
    ) -> Iterator[tuple[list[BaseDataElement], torch.Tensor]]:
        """Predicted samples and features of each batch."""
        recorder = Recorder(self.model, ['embedding'], who='Predictor')
        workers = self.num_workers if len(pictures) > batch_size else 0
        dataset = _Pictures(pictures, self.side, self.pipeline)
        try:
            for batch in DataLoader(dataset, batch_size, num_workers=workers, collate_fn=pseudo_collate):
                with recorder.record() as features:
                    samples = self.model.test_step(batch)
                yield samples, features['embedding'].float().cpu()
        finally:
            recorder.remove()


def _cosine(sample: BaseDataElement) -> torch.Tensor:
    """Cosines to all prototypes, (C,): the logits of the head that made ``pred_score``."""
    if 'novel_logits' not in sample:
        return sample.known_logits
    return torch.cat([sample.known_logits, sample.novel_logits[best_head(sample.head_objective.tolist())]])


class _Pictures(Dataset):
    def __init__(self, pictures: Sequence[PictureInput], side: int, pipeline: Compose) -> None:
        self.pictures = pictures
        self.side = side
        self.pipeline = pipeline

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict:
        picture = self.pictures[index]
        picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        return self.pipeline({'img': read_square(picture, self.side), 'sample_idx': index})
