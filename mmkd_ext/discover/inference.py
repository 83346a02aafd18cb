"""What a trained model says: about all images of a discovery, about new ones, and in another program.

Suffixes: B batch rows, N images, D dims, K known classes, C known and novel classes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
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
from scipy.special import softmax
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.datasets.folder_images import FolderImages
from mmkd_ext.discover.recipe import OutFolder
from mmkd_ext.distill import Recorder
from mmkd_ext.io import read_scalars
from mmkd_ext.models.build import load_weights
from mmkd_ext.ops.arguments import unit_features
from mmkd_ext.pictures import PictureInput, ValueRange, read_square
from mmkd_ext.registry import MODELS
from mmkd_ext.visualization import ClassCount, DiscoveryResult, project

__all__ = [
    'DiscoveryInferencer',
    'PictureInput',
    'Predictions',
    'Predictor',
    'discovery_result',
    'export_backbone',
    'export_onnx',
    'find_model',
    'map_points',
    'novel_class_names',
    'read_curves',
]


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
        cfg: With ``model``, ``image_side``, ``image_crop``, ``test_pipeline`` and perhaps ``value_range``, as
            :mod:`mmkd_ext.discover.stage_configs` makes it.
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
        novel_head = getattr(self.model, 'novel_head', None)
        self.best_head = 0 if novel_head is None else int(novel_head.best_head)
        self.side, self.crop = cfg.image_side, cfg.image_crop
        self.value_range = cfg.get('value_range')
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
                torch.stack([self._cosine(sample) for sample in samples]),
            )
            for samples, embedding in self._run(pictures, batch_size)
        ]
        return Predictions(*(torch.cat(column).float().cpu().numpy() for column in zip(*parts, strict=True)))

    def _cosine(self, sample: BaseDataElement) -> Tensor:
        """Cosines to all prototypes, (C,): the logits of the head that made ``pred_score``."""
        if 'novel_logits' not in sample:
            return sample.known_logits
        return torch.cat([sample.known_logits, sample.novel_logits[self.best_head]])

    @torch.no_grad()
    def _run(self, pictures: Sequence[PictureInput], batch_size: int) -> Iterator[tuple[list[BaseDataElement], Tensor]]:
        """Predicted samples and features of each batch."""
        recorder = Recorder(self.model, ['embedding'], caller='Predictor')
        workers = self.num_workers if len(pictures) > batch_size else 0
        dataset = _Pictures(pictures, self.side, self.value_range, self.pipeline)
        try:
            for batch in DataLoader(dataset, batch_size, num_workers=workers, collate_fn=pseudo_collate):
                with recorder.record() as features:
                    samples = self.model.test_step(batch)
                yield samples, features['embedding'].float().cpu()
        finally:
            recorder.remove()


class _Pictures(Dataset):
    def __init__(
        self, pictures: Sequence[PictureInput], side: int, value_range: ValueRange | None, pipeline: Compose
    ) -> None:
        self.pictures = pictures
        self.side = side
        self.value_range = value_range
        self.pipeline = pipeline

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict:
        pixels = read_square(self.pictures[index], self.side, self.value_range)
        return self.pipeline({'img': pixels, 'sample_idx': index})


# --------------------------------------------------------------------------------------------------
# What the report and the CSV of a discovery are written from.

_MAX_PROJECTED = 3000
_NEIGHBOURS = 3
_TEMPERATURE = 0.1
_TILE = 1000


def discovery_result(
    images: FolderImages,
    predictions: Predictions,
    novel_names: list[str],
    pictures: list[str],
    *,
    title: str,
    curves: Mapping[str, list[tuple[float, float]]],
    class_count: ClassCount | None,
    settings: Mapping[str, Any],
) -> DiscoveryResult:
    """Join images and predictions.

    Args:
        images: What was found.
        predictions: Of all images, in this order.
        novel_names: Names of the novel classes.
        pictures: Files to make thumbnails of.
        title: Heading of the report.
        curves: Name -> (epoch, value).
        class_count: How the number of novel classes was found; ``None`` if it was given.
        settings: What was run.

    Returns:
        Labelled images keep their label; their confidence is that of the model in it.
    """
    given_N = np.array(images.labels)
    labels_N = np.where(given_N >= 0, given_N, predictions.scores_NC.argmax(axis=1))
    rows = np.arange(len(labels_N))
    num_known = len(images.classes)
    return DiscoveryResult(
        title=title,
        paths=images.paths,
        pictures=pictures,
        known_names=images.classes,
        novel_names=novel_names,
        labels=labels_N,
        confidence=predictions.scores_NC[rows, labels_N].clip(0, 1),
        distance=(1 - predictions.cosine_NC[rows, labels_N]).clip(0),
        is_labelled=given_N >= 0,
        points=map_points(predictions.embedding_ND),
        relation_NK=_relation(predictions.cosine_NC, labels_N, num_known),
        curves=curves,
        class_count=class_count,
        broken=images.broken,
        ignored=images.ignored,
        notes=images.notes,
        value_range=images.value_range or None,
        settings=settings,
    )


def map_points(embedding_ND: np.ndarray, seed: int = 0) -> np.ndarray:
    """Lay embeddings out in the plane: t-SNE of at most 3,000 of them, the others between their nearest neighbours.

    Args:
        embedding_ND: (N, D).
        seed: Of the choice and of t-SNE.

    Returns:
        (N, 2): a point that is not chosen is the mean of the three chosen ones of highest cosine.
    """
    if len(embedding_ND) <= _MAX_PROJECTED:
        return project(embedding_ND, seed)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(embedding_ND))[:_MAX_PROJECTED])
    unit_ND = unit_features(embedding_ND)
    points_N2 = np.empty((len(embedding_ND), 2))
    points_N2[chosen] = project(embedding_ND[chosen], seed)
    others = np.setdiff1d(np.arange(len(embedding_ND)), chosen)
    for tile in np.array_split(others, -(-len(others) // _TILE)):
        cosine = unit_ND[tile] @ unit_ND[chosen].T
        nearest = np.argpartition(-cosine, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
        points_N2[tile] = points_N2[chosen[nearest]].mean(axis=1)
    return points_N2


def _relation(cosine_NC: np.ndarray, labels_N: np.ndarray, num_known: int) -> np.ndarray:
    """Class relation of Cr-KD, mean over the images of each novel class: probabilities of the known classes alone.

    A novel class without images gets zeros.
    """
    num_novel = cosine_NC.shape[1] - num_known
    scores_NK = softmax(cosine_NC[:, :num_known] / _TEMPERATURE, axis=1)
    relation = np.zeros((num_novel, num_known))
    for novel in range(num_novel):
        members = scores_NK[labels_N == num_known + novel]
        if len(members):
            relation[novel] = members.mean(axis=0)
    return relation


def read_curves(work_dir: Path) -> dict[str, list[tuple[float, float]]]:
    """Read the losses that the Runner logged, the last value of each epoch, over all starts of a run."""
    curves: dict[str, dict[float, float]] = {}
    for values in read_scalars(work_dir):
        for name, value in values.items():
            if 'loss' in name and 'epoch' in values:
                curves.setdefault(name, {})[values['epoch']] = value
    return {name: sorted(points.items()) for name, points in curves.items()}


# --------------------------------------------------------------------------------------------------
# New images, in the habit of mmpretrain's inferencers.


class DiscoveryInferencer:
    """Tells the class, known or discovered, of images that the model has not seen.

    Args:
        model: Folder that ``mmkd discover`` filled, or config file of its last stage.
        weights: Checkpoint; that of the folder by default.
        device: Where the model runs; the accelerator, if there is one, by default.

    Attributes:
        classes: Names of all classes, known ones first.
        num_known: Number of known classes.

    Raises:
        FileNotFoundError: There is no such folder or file, or the discovery in it is not finished.

    Example:
        >>> inferencer = DiscoveryInferencer('discovered')  # doctest: +SKIP
        >>> inferencer(['a.png', 'b.png'])[0]['pred_class']  # doctest: +SKIP
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
        pictures = [inputs] if isinstance(inputs, PictureInput) else list(inputs)
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
            f'{config}; run mmkd discover first'
        )
    if weights is None and not path.is_dir():
        raise FileNotFoundError(f'DiscoveryInferencer: expected weights beside the config {config}; give weights=...')
    weights = Path(weights or OutFolder(path).checkpoint('discovery'))
    if not weights.is_file():
        raise FileNotFoundError(
            f'DiscoveryInferencer: expected a checkpoint at {weights} but found none; let mmkd discover --resume finish'
        )
    return config, weights


def novel_class_names(known_names: list[str], num_novel: int) -> list[str]:
    """Return 'new 1', 'new 2', ..., with one more 'new' in front as long as a known class has such a name."""
    prefix = 'new'
    while True:
        names = [f'{prefix} {number + 1}' for number in range(num_novel)]
        if not set(names) & set(known_names):
            return names
        prefix = f'new {prefix}'


# --------------------------------------------------------------------------------------------------
# The model elsewhere: as ONNX, and its backbone as a checkpoint of mmpretrain.

_OPSET = 18


class _Deployed(nn.Module):
    """Pixels in, classes out: normalisation, backbone, and the head that predicts."""

    def __init__(self, inferencer: DiscoveryInferencer) -> None:
        super().__init__()
        self.network = inferencer.predictor.model
        self.best_head = inferencer.predictor.best_head

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        preprocessor = self.network.data_preprocessor
        image = image.flip(1) if preprocessor.to_rgb else image
        embedding_BD = self.network._features((image - preprocessor.mean) / preprocessor.std)
        cosine_BC = self.network.known_head(embedding_BD)
        if self.network.novel_head is not None:
            cosine_BC = torch.cat([cosine_BC, self.network.novel_head(embedding_BD)[self.best_head]], dim=1)
        return (cosine_BC / self.network.temperature).softmax(dim=1), cosine_BC, embedding_BD


def export_onnx(inferencer: DiscoveryInferencer, path: str | Path) -> None:
    """Write the model as ONNX, with one file for graph and weights.

    The input ``image`` is (B, 3, crop, crop) float32, RGB, 0 to 255: the central square of an image, see
    :func:`mmkd_ext.pictures.read_square`, and where ``crop`` is below ``side`` the centre of that. Outputs
    are ``scores`` (B, C), ``cosine`` (B, C) and ``embedding`` (B, D). The metadata ``discovery`` of the file is JSON
    with ``classes``, ``num_known``, ``side`` and ``crop``.

    Args:
        inferencer: The model, on the CPU.
        path: File to write.

    Raises:
        ModuleNotFoundError: The packages onnx and onnxscript are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch needs it)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'export_onnx: expected the packages onnx and onnxscript but {error.name} is not installed; '
            'run `pip install onnx onnxscript`',
            name=error.name,
        ) from error
    side, crop = inferencer.predictor.side, inferencer.predictor.crop
    example = torch.linspace(0, 255, 2 * 3 * crop * crop).view(2, 3, crop, crop)
    batch = torch.export.Dim('batch')
    program = torch.onnx.export(
        _Deployed(inferencer).eval(),
        (example,),
        dynamo=True,
        external_data=False,
        opset_version=_OPSET,
        input_names=['image'],
        output_names=['scores', 'cosine', 'embedding'],
        dynamic_shapes={'image': {0: batch}},
        verbose=False,
    )
    about: dict[str, Any] = {
        'classes': inferencer.classes,
        'num_known': inferencer.num_known,
        'side': side,
        'crop': crop,
    }
    if inferencer.predictor.value_range is not None:
        about['value_range'] = dict(inferencer.predictor.value_range)
    assert program is not None  # torch.onnx.export returns none only without dynamo
    model = program.model_proto
    onnx.helper.set_model_props(model, {'discovery': json.dumps(about)})
    onnx.save(model, path)


def export_backbone(weights: str | Path, path: str | Path) -> int:
    """Write the weights of the backbone alone, under the names that mmpretrain's classifiers have.

    ``init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.')`` of a backbone reads them.

    Args:
        weights: Checkpoint of any stage of a discovery.
        path: File to write.

    Returns:
        Number of entries.

    Raises:
        ValueError: There are none.
    """
    found = load_checkpoint_safely(weights)['state_dict']
    kept = {name: value for name, value in found.items() if name.startswith('backbone.')}
    if not kept:
        raise ValueError(f'export_backbone: expected entries backbone.* in {weights} but got {sorted(found)[:5]}')
    torch.save({'state_dict': kept, 'meta': {}}, path)
    return len(kept)
