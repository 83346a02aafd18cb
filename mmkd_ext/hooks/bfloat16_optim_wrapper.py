"""Mixed precision where mmengine's own wrapper refuses to work: on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmkd_ext.registry import OPTIM_WRAPPERS

__all__ = ['BFloat16OptimWrapper']


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Runs the forward of training under autocast to bfloat16, on any device; parameters stay float32.

    bfloat16 has float32's range, so nothing is scaled. CPUs with instructions for it (AMX, AVX-512 BF16) train
    convolutions several times faster; ``AmpOptimWrapper`` of mmengine needs an accelerator. Evaluation is in float32.

    Args: those of :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enable autocast for the model's device, and what mmengine enables."""
        device_type = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device_type, torch.bfloat16):
            yield
