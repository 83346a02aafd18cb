"""Plain models by name, from the collections timm and torchvision."""

import difflib
import importlib
import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import nn

__all__ = ['build_zoo_model', 'weights_command']


def build_zoo_model(zoo: str, model: str | Mapping[str, Any]) -> nn.Module:
    """Build a model without weights; nothing is downloaded.

    Args:
        zoo: ``'timm'`` or ``'torchvision'``.
        model: A name, or ``dict(name=..., **arguments)``, such as ``dict(name='resnet34', num_classes=100)``.

    Raises:
        ModuleNotFoundError: The collection is not installed.
        KeyError: It has no such model; near misses are listed.
        TypeError: The model does not take the arguments.
    """
    arguments = {'name': model} if isinstance(model, str) else dict(model)
    name = arguments.pop('name')
    package = _import(zoo)
    if zoo == 'timm':
        _check_name(zoo, name, package.list_models())
        return package.create_model(name, pretrained=False, **arguments)
    _check_name(zoo, name, package.models.list_models())
    builder = package.models.get_model_builder(name)
    if 'weights_backbone' in inspect.signature(builder).parameters:
        arguments.setdefault('weights_backbone', None)  # its default would be downloaded
    return builder(weights=None, **arguments)


def weights_command(zoo: str, model: str | Mapping[str, Any], path: str) -> str | None:
    """Return the shell command that saves the published weights, or None if the model has arguments of its own."""
    if not isinstance(model, str):
        return None
    call = {
        'timm': f"timm.create_model('{model}', pretrained=True)",
        'torchvision': f"torchvision.models.get_model('{model}', weights='DEFAULT')",
    }[zoo]
    return f"""python -c "import torch, {zoo}; torch.save({call}.state_dict(), '{path}')\""""


def _import(zoo: str) -> ModuleType:
    try:
        return importlib.import_module(zoo)
    except ModuleNotFoundError as error:
        if error.name != zoo:
            raise
        raise ModuleNotFoundError(
            f'teacher: expected the package {zoo} to build its model but found none; run `pip install {zoo}`', name=zoo
        ) from None


def _check_name(zoo: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names)
        raise KeyError(f'teacher: expected a model of {zoo} but got {name!r}; did you mean one of {near}?')
