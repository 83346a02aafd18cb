"""What ``reproduce.py`` changes in a shipped config before it trains it: folders, seed, length, speed, size."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config

from mmkd_ext.cli.train import find_stages, replace_everywhere
from mmkd_ext.models.build import dicts_in
from tables import Row, Table

CONFIGS = Path(__file__).parents[1] / 'configs'

# Of ``--smoke``: images of CIFAR-100, batch, what is narrow, and how wide the embedding then is (0: as it was).
_NUM_SMOKE = {'train': 1024, 'test': 256}
_SMOKE_BATCH = 64
_NARROW = {
    'ResNet_CIFAR': (dict(stem_channels=8, base_channels=8), 64),
    'mmkd_ext.CIFARResNet': (dict(depth=8), 0),
    'mmkd_ext.WideResNet': (dict(depth=10), 0),
}


class Settings(NamedTuple):
    """What all runs of a folder have in common.

    Attributes:
        epochs: Length of a run in place of the recipe's; None for the recipe's.
        stage_epochs: The same for rows that others build on.
        bf16: Whether the forward of training runs in bfloat16.
        compile: Whether the model is compiled.
        channels_last: Whether images have this memory format.
        smoke: Whether data and networks are tiny, to try the tool out.
    """

    epochs: int | None = None
    stage_epochs: int | None = None
    bf16: bool = False
    compile: bool = False
    channels_last: bool = False
    smoke: bool = False


class Run(NamedTuple):
    """One row with one seed.

    Attributes:
        row: The row of the table.
        seed: The seed.
        config: The config that is trained.
        work_dir: Where it is trained.
        epochs: How long.
        recipe_epochs: How long the shipped config trains.
        stages: Runs that must end before.
    """

    row: Row
    seed: int
    config: Path
    work_dir: Path
    epochs: int
    recipe_epochs: int
    stages: tuple['Run', ...]

    @property
    def name(self) -> str:
        """Row and seed, as messages say it."""
        return f'{self.row.name}, seed {self.seed}'

    @property
    def checkpoint(self) -> Path:
        """What the run leaves for those that build on it."""
        return self.work_dir / f'epoch_{self.epochs}.pth'


def make_runs(table: Table, seeds: list[int], settings: Settings, out: Path, data: str) -> list[Run]:
    """Write the config of every row and seed below ``out``; seeds in turn, each with its own stages.

    Args:
        table: The table.
        seeds: The seeds.
        settings: What to change in the configs.
        out: Folder of all that is written.
        data: Folder of CIFAR-100.

    Raises:
        ValueError: A row builds on a config that is no row.
    """
    rows = {_stem(row.config): row for row in table.rows}
    shipped = {stem: Config.fromfile(CONFIGS / row.config) for stem, row in rows.items()}
    stages = {stem: find_stages(cfg) for stem, cfg in shipped.items()}
    built_on = {_stem(config) for found in stages.values() for config in found.values()}
    if built_on - set(rows):
        raise ValueError(f'{table.title}: expected rows for {sorted(built_on - set(rows))} but got none; add them')
    epochs = {
        stem: (settings.stage_epochs if stem in built_on else settings.epochs) or cfg.train_cfg.max_epochs
        for stem, cfg in shipped.items()
    }
    runs = []
    for seed in seeds:
        made: dict[str, Run] = {}
        for stem, cfg in shipped.items():
            config, work_dir = out / 'configs' / f'{stem}-seed{seed}.py', out / 'runs' / f'{stem}-seed{seed}'
            needs = tuple(made[_stem(stage)] for stage in stages[stem].values())
            recipe_epochs = cfg.train_cfg.max_epochs
            made[stem] = Run(rows[stem], seed, config, work_dir, epochs[stem], recipe_epochs, needs)
            content = cfg.to_dict()
            for (checkpoint, stage), need in zip(stages[stem].items(), needs, strict=True):
                content = replace_everywhere(content, stage, str(need.config))
                content = replace_everywhere(content, checkpoint, str(need.checkpoint))
            content.update(work_dir=str(work_dir), randomness=dict(seed=seed))
            _change(content, epochs[stem], settings, data)
            _write(content, config)
        runs += made.values()
    return runs


def _stem(config: str) -> str:
    """Name of a config, whichever way its data take."""
    return Path(config).stem.removesuffix('_on-device')


def _write(content: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{name} = {value!r}\n' for name, value in content.items()))


def _change(content: dict[str, Any], epochs: int, settings: Settings, data: str) -> None:
    """Apply the settings to the content of a config."""
    for node in dicts_in(content):
        if node.get('type') == 'mmkd_ext.CIFAR100':
            node['data_root'] = data
    shorten(content, epochs)
    content['default_hooks']['checkpoint'].update(interval=content['train_cfg']['val_interval'], max_keep_ckpts=1)
    # The mean of each epoch, with its last iteration, for the curves.
    content['default_hooks']['logger']['ignore_last'] = False
    means = [dict(data_src='loss', method_name='mean', window_size='epoch')]
    content['log_processor'] = dict(content.get('log_processor', {}), custom_cfg=means)
    content['env_cfg']['cudnn_benchmark'] = True
    if settings.bf16:
        content['optim_wrapper']['type'] = 'mmkd_ext.BFloat16OptimWrapper'
    if settings.compile:
        content['compile'] = True
    if settings.channels_last:
        content['model'].setdefault('data_preprocessor', content.get('data_preprocessor', {}))['channels_last'] = True
    if settings.smoke:
        _make_small(content)


def shorten(content: dict[str, Any], epochs: int) -> None:
    """Give a recipe another length, its schedule in proportion, and at least ten validations.

    A warm-up keeps two epochs at least; schedulers for which no epoch is left are dropped.

    Args:
        content: Content of a config, changed in place.
        epochs: The new length.
    """
    loop = content['train_cfg']
    factor = epochs / loop['max_epochs']

    def scaled(epoch: int) -> int:
        return min(epochs, max(2, round(epoch * factor))) if epoch else 0

    schedulers = []
    for scheduler in content['param_scheduler']:
        changed = {key: scaled(scheduler[key]) for key in ('begin', 'end') if key in scheduler}
        if 'milestones' in scheduler:
            changed['milestones'] = [scaled(epoch) for epoch in scheduler['milestones']]
        if changed.get('end', 2) - changed.get('begin', 0) >= 2:
            schedulers.append({**scheduler, **changed})
    content['param_scheduler'] = schedulers
    loop.update(max_epochs=epochs, val_interval=min(loop.get('val_interval', 1), max(1, epochs // 10)))


def _make_small(content: dict[str, Any]) -> None:
    for node in dicts_in(content):
        if node.get('type') == 'mmkd_ext.CIFAR100':
            node['indices'] = _NUM_SMOKE[node.get('split', 'train')]
    for mode in ('train', 'val', 'test'):
        content[f'{mode}_dataloader'].update(batch_size=_SMOKE_BATCH, num_workers=0, persistent_workers=False)
    model = content['model']
    narrow, width = _NARROW.get(model['backbone']['type'], ({}, 0))
    model['backbone'].update(narrow)
    for name, part in model.items():
        if width and name.endswith('head'):
            part['in_channels'] = width


def write_noise(folder: Path) -> None:
    """Write files in the official binary layout of CIFAR-100, of noise where ``--smoke`` looks and else black.

    Args:
        folder: Gets ``train.bin`` and ``test.bin``, 184 MB.
    """
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, num_images in {'train': 50_000, 'test': 10_000}.items():
        rows = np.zeros((num_images, 2 + 3072), dtype=np.uint8)
        rows[:, 1] = np.arange(num_images) % 100
        rows[: _NUM_SMOKE[name], 2:] = random.integers(0, 256, (_NUM_SMOKE[name], 3072), dtype=np.uint8)
        rows.tofile(folder / f'{name}.bin')
