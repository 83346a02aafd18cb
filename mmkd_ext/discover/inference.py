"""Runs a trained model of discovery over images.

Suffixes: N images, D dims, K known classes, C known and novel classes, H heads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.discover.folder import OutFolder, novel_class_names
from mmkd_ext.distill import Recorder
from mmkd_ext.evaluation import best_head
from mmkd_ext.models.build import load_weights
from mmkd_ext.pictures import read_square
from mmkd_ext.registry import MODELS

__all__ = ['DiscoveryInferencer', 'PictureInput', 'Predictions', 'Predictor', 'find_model']

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
            :mod:`mmkd_ext.discover.recipe` makes it.
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
        load_weights(self.model, weights, caller='Predictor')
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
        recorder = Recorder(self.model, ['embedding'], caller='Predictor')
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


# --------------------------------------------------------------------------------------------------
# Classifies new images with the model of a discovery, in the habit of mmpretrain's inferencers.


class DiscoveryInferencer:
    """Tells the class, known or discovered, of images that the model has not seen.

    Args:
        model: Folder that ``tools/discover.py`` filled, or config file of its last stage.
        weights: Checkpoint; that of the folder by default.
        device: Where the model runs; the accelerator, if there is one, by default.

    Attributes:
        classes: Names of all classes, known ones first.
        num_known: Number of known classes.

    Raises:
        FileNotFoundError: There is no such folder or file, or the discovery in it is not finished.

    Example:
        >>> inferencer = DiscoveryInferencer('discovered')
        >>> inferencer(['a.png', 'b.png'])[0]['pred_class']
        'new 2'
    """

    def __init__(self, model: str | Path, weights: str | Path | None = None, device: str | None = None) -> None:
        config, weights = find_model(model, weights)
        self.predictor = Predictor(Config.fromfile(config), weights, device)
        known = list(load_checkpoint_safely(weights)['meta']['dataset_meta']['classes'])
        network = self.predictor.model
        num_novel = 0 if network.novel_head is None else network.novel_head.num_classes
        self.num_known = network.num_known
        self.classes = [*known, *novel_class_names(known, num_novel)]

    def __call__(self, inputs: PictureInput | Sequence[PictureInput], batch_size: int = 256) -> list[dict[str, Any]]:
        """Classify images.

        Args:
            inputs: One image or several: files, open images, or uint8 arrays, grey (height, width) or RGB (height,
                width, 3). As in training, the central square counts.
            batch_size: Images in one forward.

        Returns:
            One dict per image: ``pred_class`` (name), ``is_known`` (bool), ``pred_label`` (int), ``pred_score``
            (confidence, in [0, 1]), ``pred_scores`` ((C,) float32, sums to 1) and ``distance`` (1 - cosine to the
            prototype of the class, in [0, 2]).

        Raises:
            OSError: A file cannot be read; Pillow has more errors for that
                (:data:`mmkd_ext.pictures.UNREADABLE`).
        """
        pictures = [inputs] if isinstance(inputs, (str, Path, np.ndarray, Image.Image)) else list(inputs)
        if not pictures:
            return []
        predictions = self.predictor.classify(pictures, batch_size)
        return [
            self._describe(scores, cosines)
            for scores, cosines in zip(predictions.scores_NC, predictions.cosine_NC, strict=True)
        ]

    def _describe(self, scores_C: np.ndarray, cosine_C: np.ndarray) -> dict[str, Any]:
        label = int(scores_C.argmax())
        return {
            'pred_class': self.classes[label],
            'is_known': label < self.num_known,
            'pred_label': label,
            'pred_score': float(scores_C[label]),
            'pred_scores': scores_C,
            'distance': max(0.0, 1 - float(cosine_C[label])),
        }


def find_model(model: str | Path, weights: str | Path | None = None) -> tuple[Path, Path]:
    """Return config and checkpoint of a discovery.

    Args:
        model: Folder of a discovery, or a config file.
        weights: Checkpoint; that of the folder if ``None``.

    Raises:
        FileNotFoundError: One of them is not there.
    """
    path = Path(model)
    config = OutFolder(path).config('discovery') if path.is_dir() else path
    if not config.is_file():
        raise FileNotFoundError(
            f'DiscoveryInferencer: expected the folder of a finished discovery, or a config, but found none at '
            f'{config}; run tools/discover.py first'
        )
    if weights is None and not path.is_dir():
        raise FileNotFoundError(f'DiscoveryInferencer: expected weights beside the config {config}; give weights=...')
    weights = Path(weights or OutFolder(path).checkpoint('discovery'))
    if not weights.is_file():
        raise FileNotFoundError(
            f'DiscoveryInferencer: expected a checkpoint at {weights} but found none; let tools/discover.py --resume '
            'finish'
        )
    return config, weights
