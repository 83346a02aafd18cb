"""``mmkd num-classes``, and the number of novel classes where a config says ``num_classes='auto'``.

    num_classes_from = dict(config=..., checkpoint=...)   # a representation, usually mmkd_ext.GCD: trained first
    model = dict(novel_head=dict(type='mmkd_ext.NovelHead', num_classes='auto', ...))

``mmkd train`` writes the number into the config before anything is built, so the dumped config, resuming and
evaluation see a number; it also lies in ``num_classes.json`` in the work dir.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.image import imsave
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.dist import broadcast_object_list, init_dist, is_distributed
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmkd_ext.cli import CONFIG_HELP, command, config_argument, prepare
from mmkd_ext.clustering.num_classes import CurvePoint, NumClasses, estimate_num_classes
from mmkd_ext.distill import FrozenTeacher
from mmkd_ext.engine.teacher_features import features_of_dataset, test_pipeline, with_pipeline
from mmkd_ext.models.build import build_model_from_config, dicts_in, load_weights, read_config
from mmkd_ext.samplers.planned import labels_of
from mmkd_ext.visualization import num_classes_figure
from mmkd_ext.visualization.figures import style

FILE = 'num_classes.json'


def training_features(config: str, checkpoint: str, tap: str = 'embedding') -> tuple[np.ndarray | None, np.ndarray]:
    """Embed the training images of a config, as its evaluation would see them.

    Args:
        config: Config file with model, ``train_dataloader`` and ``val_dataloader``.
        checkpoint: Weights of the model.
        tap: The feature, (B, D) or a map.

    Returns:
        (N, D) float32, None in all processes but the main one; and the labels that training sees, (N,), -1 for none.
    """
    caller = 'num_classes_from'
    cfg = read_config(config)
    model = build_model_from_config(config)
    load_weights(model, checkpoint, caller)
    model.to('cuda' if torch.cuda.is_available() else 'cpu')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    dataset = with_pipeline(loader.dataset, Compose(test_pipeline(cfg, caller)), caller)
    features = features_of_dataset(FrozenTeacher(model, [tap], caller=caller), tap, model, dataset, loader, 256)
    return (None if features is None else features.numpy()), labels_of(loader.dataset, caller)


def print_point(point: CurvePoint) -> None:
    """Print what was found with one number of clusters."""
    print(
        f'{point.num_classes:5d} classes: labelled accuracy {100 * point.accuracy:5.1f} +- '
        f'{100 * point.accuracy_se:.1f} %, silhouette {point.silhouette:.3f} +- {point.silhouette_se:.3f}',
        flush=True,
    )


def resolve_num_classes(cfg: Config, progress: Callable[[CurvePoint], None] = print_point) -> None:
    """Put the number of novel classes in place of every ``num_classes='auto'`` of the model, if there is any.

    Estimated anew unless ``cfg.resume``, where the number of the interrupted run is read from its work dir.

    Args:
        cfg: With ``work_dir`` and ``num_classes_from``; changed in place.
        progress: Called with each point of the curve.

    Raises:
        KeyError: The config does not say what to estimate from.
        ValueError: No novel class was found.
    """
    nodes = [node for node in dicts_in(cfg.model) if node.get('num_classes') == 'auto']
    if not nodes:
        return
    if 'num_classes_from' not in cfg:
        raise KeyError(
            f"{cfg.filename}: expected num_classes_from=dict(config=..., checkpoint=...) for num_classes='auto' but "
            'found none; name a representation, as mmkd_ext::gcd/gcd-crkd-auto_convnet_80e_digits-ncd.py does'
        )
    if cfg.get('launcher', 'none') != 'none' and not is_distributed():
        init_dist(cfg.launcher, **cfg.get('env_cfg', {}).get('dist_cfg', {}))
    number = [read_num_novel(cfg.work_dir) if cfg.get('resume') else None]
    if number[0] is None:
        number = [_estimate(cfg, progress)]
        broadcast_object_list(number)
    if not number[0]:
        raise ValueError(
            f'{cfg.filename}: expected at least one novel class but the estimate found none '
            f'({Path(cfg.work_dir, FILE)}); give a better representation, or a number in place of "auto"'
        )
    for node in nodes:
        node['num_classes'] = number[0]


def fill_num_classes(cfg: Config, folder: str | Path) -> None:
    """Put the number that a finished training left in ``folder`` in place of every ``num_classes='auto'``.

    Raises:
        FileNotFoundError: There is none.
    """
    nodes = [node for node in dicts_in(cfg.model) if node.get('num_classes') == 'auto']
    number = read_num_novel(folder)
    if nodes and number is None:
        raise FileNotFoundError(
            f"{cfg.filename}: expected {FILE} beside the checkpoint for num_classes='auto' but found none in {folder}; "
            'give a number by --cfg-options'
        )
    for node in nodes:
        node['num_classes'] = number


def read_num_novel(folder: str | Path) -> int | None:
    """Return the number of novel classes that was estimated in a work dir; None where there is none."""
    file = Path(folder, FILE)
    return json.loads(file.read_text())['num_novel'] if file.is_file() else None


def _estimate(cfg: Config, progress: Callable[[CurvePoint], None]) -> int | None:
    """Estimate and write; None in all processes but the main one."""
    features, labels = training_features(cfg.num_classes_from.config, cfg.num_classes_from.checkpoint)
    if features is None:
        return None
    print(f'\n=== Number of classes, from {cfg.num_classes_from.checkpoint} ===\n', flush=True)
    found = _estimate_into(Path(cfg.work_dir), features, labels, progress=progress)
    print(f'\n{found.num_known} known and {found.num_novel} novel classes\n', flush=True)
    return found.num_novel


def _estimate_into(folder: Path, features: np.ndarray, labels: np.ndarray, **settings: Any) -> NumClasses:
    found = estimate_num_classes(features, labels, **settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(found.to_dict(), indent=1))
    return found


# --------------------------------------------------------------------------------------------------
# mmkd num-classes

_DESCRIPTION = """Estimate the number of classes from the features of a trained model.

    mmkd num-classes gcd/gcd_convnet_80e_digits.py work_dirs/gcd_convnet_80e_digits/epoch_80.pth

Features of a network that learnt the labelled classes alone do not tell the others apart: use a representation that has
seen the unlabelled images, as those of configs/gcd. Prints a table; num_classes.json and num_classes.png go to --out.
"""


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = command('num-classes', _DESCRIPTION)
    parser.add_argument(
        'config', type=config_argument, help=f'its model, its training images and their labels; {CONFIG_HELP}'
    )
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--tap', default='embedding', help='module whose output is the feature')
    parser.add_argument('--max-classes', type=int, help='largest number tried; default: 4 times the known ones + 20')
    parser.add_argument('--max-samples', type=int, default=5000, help='of more images, a random part is looked at')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', help='folder of the results; default: that of the checkpoint')
    return parser.parse_args(arguments)


def num_classes(arguments: Sequence[str] | None = None) -> None:
    """Run ``mmkd num-classes``."""
    args = parse_args(arguments)
    prepare(read_config(args.config), 'none')
    features, labels = training_features(args.config, args.checkpoint, args.tap)
    assert features is not None  # in the only process
    out = Path(args.out or Path(args.checkpoint).parent)
    settings = {name: getattr(args, name) for name in ('max_classes', 'max_samples', 'seed')}
    found = _estimate_into(out, features, labels, progress=print_point, **settings)
    imsave(out / 'num_classes.png', style.to_array(num_classes_figure(found)), dpi=style.DPI)
    by_accuracy = 'no opinion (fewer than two known classes)' if found.by_accuracy is None else found.by_accuracy
    print(
        f'\n{found.estimate} classes: {found.num_known} known, {found.num_novel} novel\n'
        f'  labelled accuracy alone: {by_accuracy}; within two standard errors: {list(found.admissible)}\n'
        f'  silhouette alone: {found.by_silhouette}\n'
        f'  {out / FILE}, {out / "num_classes.png"}'
    )
