"""Train a config, with the stages that it builds on where asked.

    python tools/train.py configs/crkd/crkd_convnet_80e_digits.py --with-teacher
    bash tools/dist_train.sh configs/crkd/crkd_resnet18_500e_cifar100-50.py 4

``--cfg-options`` changes the named config, never its stages.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import barrier, is_main_process
from mmengine.runner import Runner, find_latest_checkpoint

from num_classes import resolve_num_classes
from stages import find_stages, is_trained, set_seed, short_path
from startup import prepare


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
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
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    return parser.parse_args(arguments)


def load_config(path: str, args: argparse.Namespace) -> Config:
    """Read a config and apply what the command line says about every stage alike."""
    cfg = Config.fromfile(path)
    cfg.launcher = args.launcher
    if args.seed is not None:
        cfg = set_seed(cfg, args.seed)
    suffix = '' if args.seed is None else f'-seed{args.seed}'
    cfg.setdefault('work_dir', str(Path('work_dirs', Path(path).stem + suffix)))
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
        if '::' in config:
            raise FileNotFoundError(
                f'{short_path(cfg.filename)}: expected the checkpoint {checkpoint} but found none; '
                f'download the published one of {config}'
            )
        folder = Path(checkpoint).parent
        if not args.with_teacher:
            raise FileNotFoundError(
                f'{short_path(cfg.filename)}: expected the checkpoint {checkpoint} but found none; train it with\n'
                f'    python tools/train.py {short_path(config)} --work-dir {folder}\n'
                'or add --with-teacher to this command, which does that first'
            )
        if is_main_process():
            print(f'\n=== First {short_path(config)}, which makes {checkpoint} ===\n', flush=True)
        stage = load_config(config, args)
        stage.work_dir = str(folder)
        train_stages(stage, args)
        apply_resume(stage, 'auto' if args.resume else None)
        run(stage)
        if not Path(checkpoint).is_file():
            raise RuntimeError(
                f'{short_path(config)}: expected to leave {checkpoint} but it is not there; '
                f'its folder holds {sorted(p.name for p in folder.glob("*.pth"))}: make both configs agree'
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(arguments)
    cfg = load_config(args.config, args)
    apply_options(cfg, args)
    prepare(cfg, args.launcher)
    train_stages(cfg, args)
    if args.with_teacher and is_main_process():
        print(f'\n=== Now {short_path(args.config)} ===\n', flush=True)
    apply_resume(cfg, args.resume)
    resolve_num_classes(cfg)
    run(cfg)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
