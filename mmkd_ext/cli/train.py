"""``mmkd train`` and ``mmkd test``: run a config, with the stages that it builds on where asked.

A stage is any ``dict(config=..., checkpoint=...)`` in a config, wherever it stands: the teacher of ``DistillHook`` or
the first stage of a discovery run.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import barrier, is_main_process
from mmengine.runner import Runner, find_latest_checkpoint

from mmkd_ext.cli import CONFIG_HELP, command, config_argument, prepare
from mmkd_ext.cli.num_classes import fill_num_classes, resolve_num_classes
from mmkd_ext.models.build import dicts_in, find_config, is_published, read_config, shown_config

_LAUNCHERS = ['none', 'pytorch', 'slurm', 'mpi']

# --------------------------------------------------------------------------------------------------
# Recipes of several stages: what a config needs trained before it, and where that lies.


def find_stages(cfg: Config) -> dict[str, str]:
    """Return ``{checkpoint: config}`` of every stage with a local checkpoint, in order of appearance."""
    return {
        node['checkpoint']: node['config']
        for node in dicts_in(cfg._cfg_dict.to_dict())
        if node.get('config') and node.get('checkpoint') and '://' not in node['checkpoint']
    }


def is_trained(checkpoint: str) -> bool:
    """Whether the checkpoint of a stage is there and whole.

    mmengine writes ``last_checkpoint`` after the file that it names. Where it stands and names an earlier epoch or
    iteration than this file's name does, the stage was cut off, perhaps while it wrote this very checkpoint.
    """
    path = Path(checkpoint)
    pointer = path.parent / 'last_checkpoint'
    if not path.is_file():
        return False
    own, last = _progress(path.name), _progress(pointer.read_text()) if pointer.is_file() else None
    return own is None or last is None or own <= last


def _progress(name: str) -> int | None:
    """Epoch or iteration in the name of a checkpoint; None for a name of another kind."""
    match = re.search(r'(?:epoch|iter)_(\d+)\.pth', name)
    return match and int(match[1])


def replace_everywhere(node: Any, old: str, new: str) -> Any:
    """Return ``node`` with every string equal to ``old`` replaced, in dicts, lists and tuples of any depth."""
    if isinstance(node, dict):
        return {key: replace_everywhere(value, old, new) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(replace_everywhere(value, old, new) for value in node)
    return new if isinstance(node, str) and node == old else node


def seeded_path(path: str, seed: int) -> str:
    """``work_dirs/x/epoch_40.pth`` -> ``work_dirs/x-seed3/epoch_40.pth``."""
    folder, name = Path(path).parent, Path(path).name
    return str(folder.with_name(f'{folder.name}-seed{seed}') / name)


def set_seed(cfg: Config, seed: int) -> Config:
    """Give the run and each of its stages this seed and, by its name, a folder of its own."""
    content = cfg._cfg_dict.to_dict()
    for checkpoint in find_stages(cfg):
        content = replace_everywhere(content, checkpoint, seeded_path(checkpoint, seed))
    content.setdefault('randomness', {})['seed'] = seed
    return Config(content, filename=cfg.filename)


# --------------------------------------------------------------------------------------------------
# mmkd train

_TRAIN = """Train a config, with the stages that it builds on where asked.

    mmkd train crkd/crkd_convnet_80e_digits.py --with-teacher
    torchrun --standalone --nproc-per-node 4 -m mmkd_ext train CONFIG --launcher pytorch

--cfg-options changes the named config, never its stages.
"""


def parse_train(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = command('train', _TRAIN)
    parser.add_argument('config', type=config_argument, help=CONFIG_HELP)
    parser.add_argument('--work-dir', help='where logs and checkpoints go; default: work_dirs/<config name>')
    parser.add_argument(
        '--with-teacher',
        action='store_true',
        help='first train the stages (teacher, stage one) that have no checkpoint yet',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint or, without a value, from the newest in the work dir (start afresh if none)',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision (AmpOptimWrapper, needs a GPU)')
    parser.add_argument(
        '--seed', type=int, help='seed of the run and of its stages; each seed gets folders of its own, <name>-seed<N>'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value pairs that override the config')
    parser.add_argument('--launcher', choices=_LAUNCHERS, default='none')
    return parser.parse_args(arguments)


def load_config(path: str, args: argparse.Namespace) -> Config:
    """Read a config and apply what the command line says about every stage alike."""
    cfg = read_config(path)
    cfg.launcher = args.launcher
    if args.seed is not None:
        cfg = set_seed(cfg, args.seed)
    suffix = '' if args.seed is None else f'-seed{args.seed}'
    cfg.setdefault('work_dir', str(Path('work_dirs', Path(cfg.filename).stem + suffix)))
    return cfg


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Apply what the command line says about the named config only."""
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    if args.amp:
        if not torch.cuda.is_available():
            raise ValueError('--amp: expected a GPU but found none; leave it out')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def apply_resume(cfg: Config, resume: str | None) -> None:
    """Resume only from a checkpoint of this very run: ``load_from`` may name the first stage's."""
    if resume is None:
        return
    checkpoint = find_latest_checkpoint(cfg.work_dir) if resume == 'auto' else resume
    if checkpoint is None:
        print(f'--resume: no checkpoint in {cfg.work_dir}; starting from the beginning', flush=True)
        return
    cfg.resume, cfg.load_from = True, checkpoint


def run(cfg: Config) -> None:
    """Train one config with the stock Runner.

    Raises:
        OSError: the work dir cannot be made.
    """
    prepare(cfg, cfg.launcher)
    try:
        Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f'--work-dir: expected a folder to write to but got {cfg.work_dir} ({error}); choose another'
        ) from None
    Runner.from_cfg(cfg).train()
    barrier()


def train_stages(cfg: Config, args: argparse.Namespace) -> None:
    """Train what ``cfg`` builds on, or say which command does.

    Raises:
        FileNotFoundError: a stage is missing and ``--with-teacher`` was not given, or it is one to download.
        RuntimeError: a stage was trained but did not leave the checkpoint that ``cfg`` names.
    """
    for checkpoint, config in find_stages(cfg).items():
        if is_trained(checkpoint):
            continue
        if is_published(config):
            raise FileNotFoundError(
                f'{shown_config(cfg.filename)}: expected the checkpoint {checkpoint} but found none; '
                f'download the published one of {config}'
            )
        folder, shown = Path(checkpoint).parent, shown_config(find_config(config))
        if not args.with_teacher:
            raise FileNotFoundError(
                f'{shown_config(cfg.filename)}: expected the checkpoint {checkpoint} but found none; train it with\n'
                f'    mmkd train {shown} --work-dir {folder}\n'
                'or add --with-teacher to this command, which does that first'
            )
        if is_main_process():
            print(f'\n=== First {shown}, which makes {checkpoint} ===\n', flush=True)
        stage = load_config(config, args)
        stage.work_dir = str(folder)
        train_stages(stage, args)
        apply_resume(stage, 'auto' if args.resume else None)
        run(stage)
        if not Path(checkpoint).is_file():
            raise RuntimeError(
                f'{shown}: expected to leave {checkpoint} but it is not there; '
                f'its folder holds {sorted(p.name for p in folder.glob("*.pth"))}: make both configs agree'
            )


def train(arguments: Sequence[str] | None = None) -> None:
    """Run ``mmkd train``."""
    args = parse_train(arguments)
    cfg = load_config(args.config, args)
    apply_options(cfg, args)
    prepare(cfg, args.launcher)
    train_stages(cfg, args)
    if args.with_teacher and is_main_process():
        print(f'\n=== Now {shown_config(cfg.filename)} ===\n', flush=True)
    apply_resume(cfg, args.resume)
    resolve_num_classes(cfg)
    run(cfg)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


# --------------------------------------------------------------------------------------------------
# mmkd test

_TEST = """Evaluate a checkpoint: the numbers of training's last validation, and the report.

    mmkd test crkd/crkd_convnet_80e_digits.py work_dirs/crkd_convnet_80e_digits/epoch_80.pth
"""


def parse_test(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = command('test', _TEST)
    parser.add_argument('config', type=config_argument, help=CONFIG_HELP)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--work-dir', help='where logs and the report go; default: work_dirs/<config name>/test_<checkpoint name>'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value pairs that override the config')
    parser.add_argument('--launcher', choices=_LAUNCHERS, default='none')
    return parser.parse_args(arguments)


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Run ``mmkd test``."""
    args = parse_test(arguments)
    cfg = read_config(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    fill_num_classes(cfg, Path(args.checkpoint).parent)
    cfg.launcher = args.launcher
    cfg.load_from = args.checkpoint
    # Not the folder of the run: its report is that of its last validation.
    folder = cfg.get('work_dir') or Path('work_dirs', Path(cfg.filename).stem)
    cfg.work_dir = args.work_dir or str(Path(folder, f'test_{Path(args.checkpoint).stem}'))
    prepare(cfg, args.launcher)
    Runner.from_cfg(cfg).test()
    barrier()  # a process that leaves while another writes the report can end in an abort of gloo
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
