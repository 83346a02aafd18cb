"""Made the files of ``frozen_0.1``, with the code of 0.1.0 at 8e26297 and the names that its parts had there.

    PYTHONPATH=<checkout of 8e26297>:<checkout>/tools python make_frozen_01.py <checkout> <new folder>

Kept to show where the files are from. Later code must read them, not make them again.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from num_classes import training_features
from PIL import Image
from sklearn.datasets import load_digits
from startup import prepare

from mmkd_ext.checkpoint import load_checkpoint_safely, register_safe_loader
from mmkd_ext.discover import DiscoveryInferencer, Options, Steps
from mmkd_ext.functional import estimate_num_classes
from mmkd_ext.models.build import build_model_from_config

CHECKOUT, OUT = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
NETWORK = """
model = dict(
    backbone=dict(channels=(4, 8)),
    known_head=dict(in_channels=8){novel})
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
default_hooks = dict(checkpoint=dict(interval=1))
"""
STAGE = "_base_ = '{root}/configs/supervised/supervised_convnet_40e_digits.py'" + NETWORK
RECIPE = (
    """
_base_ = '{root}/configs/crkd/crkd_convnet_80e_digits.py'
stage_one = dict(config='stage_one.py', checkpoint='stage_one.pth')
load_from = stage_one['checkpoint']
custom_hooks = [*_base_.custom_hooks[:-1], dict(_base_.custom_hooks[-1], teacher=stage_one)]
"""
    + NETWORK
)
NOVEL = ', novel_head=dict(in_channels=8, hidden_channels=8, embed_channels=8, num_heads=2)'
# A relation, a choice of layers that keeps a state, a cached teacher and superclasses.
RELATION = """
_base_ = '{root}/configs/cckd/cckd-sur_convnet-small_100e_digits-200.py'
teacher = dict(config='relation_teacher.py', checkpoint='relation_teacher.pth')
model = dict(backbone=dict(channels=(4, 8)), head=dict(in_channels=8))
train_dataloader = dict(dataset=dict(indices=40, pipeline=_base_.test_pipeline), batch_size=20)
custom_hooks = [
    *_base_.custom_hooks[:-2],
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(teacher, cache='teacher_cache'),
        terms=dict(
            cc=dict(tap='neck', loss=dict(type='mmkd_ext.CCKDLoss', loss_weight=10.0)),
            sp=dict(
                pairs=[('backbone.layers.0', 'neck'), ('neck', 'neck')],
                choice='adaptive',
                loss=dict(type='mmkd_ext.SPLoss', loss_weight=1.0)))),
    dict(_base_.custom_hooks[-1], teacher=teacher, num_superclasses=3, cache='superclasses')]
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=1))
"""
RELATION_TEACHER = """
_base_ = '{root}/configs/supervised/supervised_convnet-large_100e_digits-200.py'
model = dict(backbone=dict(channels=(4, 6)), head=dict(in_channels=6))
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
"""


def dump(name, text, **values):
    """Resolve a config and leave it under its name, as a run dumps it."""
    source = Path(f'source_{name}.py')
    source.write_text(text.format(root=CHECKOUT, **values))
    cfg = Config.fromfile(source)
    prepare(cfg, 'none')
    cfg.work_dir = f'runs/{name}'
    cfg.dump(f'{name}.py')
    source.unlink()


def train(name, epoch):
    """Train a dumped config; keep the checkpoint of an epoch."""
    cfg = Config.fromfile(f'{name}.py')
    prepare(cfg, 'none')
    Runner.from_cfg(cfg).train()
    shutil.copy(f'runs/{name}/epoch_{epoch}.pth', f'{name}.pth')


def predictions(model, samples):
    """What ``model`` answers: logits of both heads, scores, the best head's objective."""
    with torch.no_grad():
        answers = model.test_step(pseudo_collate(samples))
    names = sorted(set(answers[0].all_keys()) & {'known_logits', 'novel_logits', 'pred_score', 'head_objective'})
    return {name: torch.stack([answer.get(name) for answer in answers]).numpy() for name in names}


def expect():
    """Predictions of 16 test images by the network of the discovery, and a teacher's of the same."""
    found = {}
    for name in ('stage_one', 'discovery'):
        cfg = Config.fromfile('discovery.py')
        dataset = Runner.build_dataloader(cfg.test_dataloader).dataset
        samples = [dataset[int(index)] for index in np.linspace(0, len(dataset) - 1, 16)]
        model = build_model_from_config(f'{name}.py').eval()
        model.load_state_dict(load_checkpoint_safely(f'{name}.pth')['state_dict'])
        found |= {f'{name}/{key}': value for key, value in predictions(model, samples).items()}
        found['images'] = np.stack([sample['inputs'].numpy() for sample in samples])
    np.savez_compressed('expected.npz', **found)


def estimate():
    """``num_classes.json`` as training leaves it in the work dir."""
    features, labels = training_features('discovery.py', 'discovery.pth')
    chosen = np.linspace(0, len(labels) - 1, 200).astype(int)
    found = estimate_num_classes(features[chosen], labels[chosen], max_classes=12, num_repeats=2)
    Path('num_classes.json').write_text(json.dumps(found.to_dict(), indent=1))


def discover():
    """A discovery in a folder of 24 digits; the network is made small in the files that a user may change."""
    digits = load_digits()
    chosen = [index for index in range(200) if digits.target[index] in (0, 1, 4, 7)][:48]
    for number, index in enumerate(chosen):
        label = digits.target[index]
        folder = Path('images/known', f'digit {label}') if label < 2 and number % 3 else Path('images/all')
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[index] * 15).astype(np.uint8)).save(folder / f'{number}.png')
    steps = Steps(Options('images/known', 'images/all', epochs=2), 'discovered', say=print)
    steps._scan()
    recipe = json.loads(Path('discovered/recipe.json').read_text())
    recipe['backbone']['channels'], recipe['num_features'] = [4, 8], 8
    Path('discovered/recipe.json').write_text(json.dumps(recipe, indent=1))
    write = steps.folder.write_config

    def write_small(stage, settings):
        if 'novel_head' in settings['model']:
            settings['model']['novel_head'].update(hidden_channels=8, embed_channels=8)
        write(stage, settings)

    object.__setattr__(steps.folder, 'write_config', write_small)
    steps.run()
    root = Path('discovered')
    for folder in root.iterdir():
        if folder.is_dir() and folder.name not in ('configs', 'discovery', 'stage_one'):
            shutil.rmtree(folder)
    for stage in ('discovery', 'stage_one'):
        for path in sorted((root / stage).rglob('*'), reverse=True):
            path.rmdir() if path.is_dir() else path.suffix == '.pth' or path.unlink()
    (root / 'report.html').unlink()
    for path in (root / 'configs').glob('*.py'):
        if path.stem not in ('discovery', 'stage_one'):
            path.unlink()
    paths = sorted(str(path) for path in Path('images').rglob('*.png'))[:16]
    answers = DiscoveryInferencer('discovered')(paths)
    content = {
        path: {
            'pred_class': a['pred_class'],
            'pred_scores': a['pred_scores'].tolist(),
            'distance': float(a['distance']),
        }
        for path, a in zip(paths, answers, strict=True)
    }
    Path('discovered_answers.json').write_text(json.dumps(content, indent=1))


def main():
    """Make all, and take the path of this machine out of the text."""
    OUT.mkdir(parents=True)
    os.chdir(OUT)
    register_safe_loader()
    torch.set_num_threads(1)
    dump('stage_one', STAGE, novel='', epochs=1)
    train('stage_one', 1)
    dump('discovery', RECIPE, novel=NOVEL, epochs=3)
    train('discovery', 2)
    dump('relation_teacher', RELATION_TEACHER)
    train('relation_teacher', 1)
    dump('relation', RELATION)
    train('relation', 1)
    expect()
    estimate()
    discover()
    shutil.rmtree('runs')
    for path in OUT.rglob('*'):
        if path.suffix in ('.py', '.json', '.csv'):
            path.write_text(path.read_text().replace(f'{OUT}/', '').replace(str(OUT), '.').replace(f'{CHECKOUT}/', ''))


if __name__ == '__main__':
    main()
