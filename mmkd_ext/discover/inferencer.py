"""Classifies new images with the model of a discovery, in the habit of mmpretrain's inferencers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.discover.folder import OutFolder, novel_class_names
from mmkd_ext.discover.predictor import PictureInput, Predictor

__all__ = ['DiscoveryInferencer', 'find_model']


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
                (:data:`mmkd_ext.functional.pictures.UNREADABLE`).
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
