"""What a checkpoint, written by the main process, would otherwise lack of each process."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_gather_object, gather_object, get_world_size
from torch import nn

from mmkd_ext.samplers.random_state import set_random_state

__all__ = ['gather_local_states', 'restore_local_state']


def gather_local_states(model: nn.Module, random_state: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Collect the states of all processes, all of which call this.

    Args:
        model: Without a wrapper.
        random_state: Of this process, from :func:`mmkd_ext.samplers.random_state.get_random_state`.

    Returns:
        In the main process, by rank: ``random``, the random states; ``gradients`` by parameter, which exist between
        updates only while gradients are accumulated; ``buffers`` by name, those in which processes differ, such as the
        batch statistics without SyncBN. None in other processes.
    """
    return gather_object(
        {
            'random': random_state,
            'gradients': {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None},
            'buffers': _differing_buffers(model) if get_world_size() > 1 else {},
        }
    )


def restore_local_state(state: Mapping[str, Any], model: nn.Module) -> None:
    """Bring the process to the state that :func:`gather_local_states` found it in.

    Args:
        state: The entry of this rank.
        model: Without a wrapper.
    """
    set_random_state(state['random'])
    for name, gradient in state['gradients'].items():
        parameter = model.get_parameter(name)
        parameter.grad = gradient.to(parameter.device)
    for name, value in state['buffers'].items():
        model.get_buffer(name).copy_(value)


def _differing_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    buffers = {name: buffer.cpu() for name, buffer in model.named_buffers()}
    # Digests first: a queue of features, alike everywhere, need not travel.
    digests = all_gather_object({name: _digest(buffer) for name, buffer in buffers.items()})
    return {name: buffer for name, buffer in buffers.items() if len({digest[name] for digest in digests}) > 1}


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
