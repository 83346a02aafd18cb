"""Training on machines without a GPU, in one process or several.

mmengine's launchers call ``torch.cuda.set_device``, its default wrapper passes ``device_ids``, and SyncBN refuses CPU
tensors: this module starts gloo first and names a wrapper that works on CPU. With GPUs it changes nothing.
"""

import torch
from mmengine.config import Config


def prepare_cpu(cfg: Config, launcher: str) -> None:
    """Let ``launcher='pytorch'`` work over gloo where no GPU is present, and heed ``cpu_threads`` of the config.

    Raises:
        ValueError: another launcher was asked for on a machine without a GPU.
    """
    if torch.cuda.is_available():
        return
    if 'cpu_threads' in cfg:
        torch.set_num_threads(cfg.cpu_threads)
    if launcher == 'none':
        return
    if launcher != 'pytorch':
        raise ValueError(
            f'--launcher: expected "pytorch" on a machine without a GPU but got {launcher!r}; '
            'start CPU processes with tools/dist_train.sh or tools/dist_test.sh'
        )
    cfg.env_cfg.dist_cfg = dict(backend='gloo')
    cfg.pop('sync_bn', None)
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    wrapper['find_unused_parameters'] = cfg.pop('find_unused_parameters', False)
    cfg.setdefault('model_wrapper_cfg', wrapper)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
