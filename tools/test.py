"""Evaluate a checkpoint: the numbers of training's last validation, and the report.

python tools/test.py configs/crkd/crkd_convnet_80e_digits.py work_dirs/crkd_convnet_80e_digits/epoch_80.pth
"""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import barrier
from mmengine.runner import Runner

from num_classes import fill_num_classes
from startup import prepare


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--work-dir', help='where logs and the report go; default: work_dirs/<config name>/test_<checkpoint name>'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value pairs that override the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    fill_num_classes(cfg, Path(args.checkpoint).parent)
    cfg.launcher = args.launcher
    cfg.load_from = args.checkpoint
    # Not the folder of the run: its report is that of its last validation.
    run = cfg.get('work_dir') or Path('work_dirs', Path(args.config).stem)
    cfg.work_dir = args.work_dir or str(Path(run, f'test_{Path(args.checkpoint).stem}'))
    prepare(cfg, args.launcher)
    Runner.from_cfg(cfg).test()
    barrier()  # a process that leaves while another writes the report can end in an abort of gloo
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
