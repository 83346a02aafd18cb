"""The commands ``mmkd train``, ``test``, ``discover``, ... as functions, and what they share.

Each is ``function(arguments=None)``, where ``arguments`` is a list of words in place of the command line's.
:mod:`mmkd_ext.__main__` lists them; the scripts in ``tools/`` call the same functions.
"""

import argparse
import warnings

import torch
from mmengine.config import Config

from mmkd_ext.checkpoint import register_safe_loader
from mmkd_ext.models.build import find_config

CONFIG_HELP = 'config file, or the name of a config of this package, with or without its folder'


def command(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of ``mmkd <name>``."""
    return argparse.ArgumentParser(
        prog=f'mmkd {name}', description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def config_argument(text: str) -> str:
    """Return the path of the config that a word of the command line names.

    Raises:
        argparse.ArgumentTypeError: There is none.
    """
    try:
        return str(find_config(text))
    except (FileNotFoundError, ModuleNotFoundError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def prepare(cfg: Config, launcher: str) -> None:
    """Load checkpoints safely, heed ``cpu_threads`` of the config, and let several processes work without a GPU.

    Raises:
        ValueError: a launcher other than ``pytorch`` was asked for on a machine without a GPU.
    """
    register_safe_loader()
    # Said at every start on mmcv without compiled operators, which nothing here uses.
    warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
    if torch.cuda.is_available():
        return
    if 'cpu_threads' in cfg:
        torch.set_num_threads(cfg.cpu_threads)
    if launcher != 'none':
        _prepare_cpu_processes(cfg, launcher)


def _prepare_cpu_processes(cfg: Config, launcher: str) -> None:
    """Start gloo and name a wrapper that works on CPU.

    mmengine's launchers call ``torch.cuda.set_device``, its default wrapper passes ``device_ids``, and torch's SyncBN
    refuses CPU tensors: ``sync_bn`` of the config, of whatever kind, gets ours.
    """
    if launcher != 'pytorch':
        raise ValueError(
            f'--launcher: expected "pytorch" on a machine without a GPU but got {launcher!r}; '
            'start CPU processes with torchrun -m mmkd_ext ... --launcher pytorch'
        )
    cfg.setdefault('env_cfg', {}).dist_cfg = dict(backend='gloo')
    if cfg.pop('sync_bn', None):
        cfg.custom_hooks = [dict(type='mmkd_ext.SyncBatchNormHook'), *cfg.get('custom_hooks', [])]
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    wrapper['find_unused_parameters'] = cfg.pop('find_unused_parameters', False)
    cfg.setdefault('model_wrapper_cfg', wrapper)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
