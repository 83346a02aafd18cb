"""What torch and mmengine do on GPUs alone, on any device: batch norm over all processes, bfloat16 in training.

Shape suffixes: B rows, C channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd_ext.ops.distributed import num_processes, sum_with_grad
from mmkd_ext.registry import OPTIM_WRAPPERS


class SyncBatchNorm(_BatchNorm):
    """Batch norm whose training statistics are those of the batches of all processes together.

    ``torch.nn.SyncBatchNorm`` does the same on GPUs, faster, and refuses CPU tensors; this one exists so that
    processes over gloo train as one process does. Batches may differ in size between processes, also be empty. The
    variance is taken around the joint mean in a second pass, so it takes two messages of C + 1 and C numbers, in
    forward as in backward. Arguments, parameters and buffers are those of ``torch.nn.BatchNorm2d``; inputs are
    (B, C, ...). In evaluation, and in one process, it is that module.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalise every channel.

        Args:
            input: Shape (B, C, ...), floating.

        Returns:
            The same shape and dtype.

        Raises:
            ValueError: If the input has fewer than two dimensions.
        """
        self._check_input_dim(input)
        uses_batch = self.training or self.running_mean is None
        if num_processes() == 1 or not uses_batch:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            x = input.to(torch.promote_types(input.dtype, torch.float32))
            return self._normalise(x).to(input.dtype)

    def _normalise(self, x: Tensor) -> Tensor:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
        num_own = x.new_full((1,), x.numel() // x.shape[1])
        sum_C, count_1 = sum_with_grad(torch.cat([x.sum(axes), num_own])).split([x.shape[1], 1])
        mean_C = sum_C / count_1
        deviation = x - mean_C.view(shape)
        variance_C = sum_with_grad(deviation.square().sum(axes)) / count_1
        self._track(mean_C.detach(), variance_C.detach(), count_1.detach())
        y = deviation * (variance_C + self.eps).rsqrt().view(shape)
        return y * self.weight.view(shape) + self.bias.view(shape) if self.affine else y

    @torch.no_grad()
    def _track(self, mean_C: Tensor, variance_C: Tensor, count_1: Tensor) -> None:
        mean, variance, count = self.running_mean, self.running_var, self.num_batches_tracked
        if not self.training or mean is None or variance is None or count is None:
            return
        count += 1
        momentum = 1 / count.to(mean_C.dtype) if self.momentum is None else self.momentum
        unbiased_C = variance_C * count_1 / (count_1 - 1).clamp(min=1)
        mean += momentum * (mean_C - mean)
        variance += momentum * (unbiased_C - variance)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        if input.ndim < 2:
            raise ValueError(
                f'SyncBatchNorm: expected input of shape (B, C, ...) but got {tuple(input.shape)}; keep both axes'
            )


def convert_sync_batch_norm(model: nn.Module) -> nn.Module:
    """Put :class:`SyncBatchNorm` in the place of every batch norm of a model, torch's own ``SyncBatchNorm`` included.

    Parameters and buffers stay the same objects, so an optimizer or a wrapper that holds them need not know.

    Args:
        model: Changed in place.

    Returns:
        The model; another object only if it is itself a batch norm.
    """
    for name, child in model.named_children():
        setattr(model, name, convert_sync_batch_norm(child))
    if not isinstance(model, _BatchNorm) or isinstance(model, SyncBatchNorm):
        return model
    norm = SyncBatchNorm(model.num_features, model.eps, model.momentum, model.affine, model.track_running_stats)
    for name in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'):
        setattr(norm, name, getattr(model, name))
    return norm.train(model.training)


# --------------------------------------------------------------------------------------------------
# Mixed precision where mmengine's own wrapper refuses to work: on a CPU.


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
