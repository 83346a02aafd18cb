"""Plain models by name, from the collections timm and torchvision, and what these say of their inputs."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from mmkd_ext.distill import Normalization
from mmkd_ext.ops.arguments import near_misses

__all__ = ['ZOOS', 'build_zoo_model', 'weights_command', 'zoo_normalization']

ZOOS = ('timm', 'torchvision')

# What torchvision sets where it loads its weights itself. The first entry changes the result and is not in the weights:
# they were trained on inputs in [-1, 1], and the model makes these of inputs that are normalized as for ImageNet.
_AS_PUBLISHED: dict[str, dict[str, Any]] = {
    'inception_v3': dict(transform_input=True, init_weights=False),
    'googlenet': dict(transform_input=True, init_weights=False, aux_logits=False),
}


def build_zoo_model(zoo: str, model: str | Mapping[str, Any]) -> nn.Module:
    """Build a model without weights; nothing is downloaded.

    It is the model that the published weights belong to: torchvision's ``inception_v3`` and ``googlenet`` have
    ``transform_input=True``, as if torchvision had loaded them.

    Args:
        zoo: ``'timm'`` or ``'torchvision'``.
        model: A name, or ``dict(name=..., **arguments)``, such as ``dict(name='resnet34', num_classes=100)``. A name of
            timm may have a tag, ``'resnet50.a1_in1k'``; with torchvision, ``weights='IMAGENET1K_V1'`` among the
            arguments says which ones the model will get. Both only matter to :func:`zoo_normalization`.

    Raises:
        ModuleNotFoundError: The collection is not installed.
        KeyError: It has no such model or no such weights; near misses are listed.
        TypeError: The model does not take the arguments.

    Example:
        >>> type(build_zoo_model('torchvision', 'squeezenet1_1')).__name__
        'SqueezeNet'
    """
    name, arguments = _read(zoo, model)
    package = _import(zoo)
    if zoo == 'timm':
        return package.create_model(name, pretrained=False, **arguments)
    builder = package.models.get_model_builder(name)
    if 'weights_backbone' in inspect.signature(builder).parameters:
        arguments.setdefault('weights_backbone', None)  # its default would be downloaded
    arguments.pop('weights', None)
    return builder(weights=None, **{**_AS_PUBLISHED.get(name, {}), **arguments})


def zoo_normalization(zoo: str, model: str | Mapping[str, Any]) -> Normalization | None:
    """Return what the published weights of a model were trained on, as the collection says it; nothing is downloaded.

    Args:
        zoo: ``'timm'`` or ``'torchvision'``.
        model: As in :func:`build_zoo_model`. Without a tag or ``weights``, the collection's default weights are meant.

    Returns:
        In units of pixels, 0 to 255; None if the collection does not know, or the model has other channels.

    Raises:
        ModuleNotFoundError: The collection is not installed.
        KeyError: It has no such model or no such weights; near misses are listed.

    Example:
        >>> zoo_normalization('torchvision', 'efficientnet_v2_l').mean
        (127.5, 127.5, 127.5)
    """
    name, arguments = _read(zoo, model)
    if zoo == 'timm':
        about: Any = _import(zoo).get_pretrained_cfg(name, allow_unregistered=True)
        mean, std = getattr(about, 'mean', None), getattr(about, 'std', None)
        if len(mean or ()) != arguments.get('in_chans', len(mean or ())):
            return None
    else:
        weights = _weights_of(name, arguments)
        about = None if weights is None else weights.transforms()
        mean, std = getattr(about, 'mean', None), getattr(about, 'std', None)
        if type(about).__name__ == 'ObjectDetection':
            mean, std = (0.0,), (1.0,)  # detectors normalize images in [0, 1] themselves
    if mean is None or std is None:
        return None
    return Normalization(tuple(255.0 * value for value in mean), tuple(255.0 * value for value in std))


def weights_command(zoo: str, model: str | Mapping[str, Any], path: str) -> str | None:
    """Return the shell command that saves the published weights, or None if the model has arguments of its own."""
    arguments = {'name': model} if isinstance(model, str) else dict(model)
    name, weights = arguments.pop('name'), 'DEFAULT'
    if zoo == 'torchvision':
        weights = arguments.pop('weights', weights)
    if arguments:
        return None
    call = {
        'timm': f"timm.create_model('{name}', pretrained=True)",
        'torchvision': f"torchvision.models.get_model('{name}', weights='{weights}')",
    }[zoo]
    return f"""python -c "import torch, {zoo}; torch.save({call}.state_dict(), '{path}')\""""


def _read(zoo: str, model: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return name and arguments, both known to the collection."""
    arguments: dict[str, Any] = {'name': model} if isinstance(model, str) else dict(model)
    name = arguments.pop('name')
    package = _import(zoo)
    if zoo == 'torchvision':
        _check_name(zoo, name, package.models.list_models())
        _weights_of(name, arguments)
        return name, arguments
    architecture, _, tag = name.partition('.')
    _check_name(zoo, architecture, package.list_models())
    tagged = package.list_models(f'{architecture}.*', pretrained=True)
    if tag and name not in tagged:
        _check_name(zoo, name, tagged)
    return name, arguments


def _weights_of(name: str, arguments: Mapping[str, Any]) -> Any:
    """Return the entry of torchvision's enumeration, None if there is no enumeration."""
    models = _import('torchvision').models
    try:
        known = models.get_model_weights(name)
    except (ValueError, RuntimeError):  # a model that somebody has registered
        return None
    wanted = arguments.get('weights')
    if wanted is None:
        return getattr(known, 'DEFAULT', None)
    word = str(wanted).rpartition('.')[2]
    if word != 'DEFAULT':
        _check_name(f'torchvision ({name})', word, [entry.name for entry in known], 'weights')
    return known[word] if word != 'DEFAULT' else known.DEFAULT


def _import(zoo: str) -> ModuleType:
    try:
        return importlib.import_module(zoo)
    except ModuleNotFoundError as error:
        if error.name != zoo:
            raise
        raise ModuleNotFoundError(
            f'teacher: expected the package {zoo} to build its model but found none; run `pip install {zoo}`', name=zoo
        ) from None


def _check_name(zoo: str, name: str, names: Sequence[str], what: str = 'a model') -> None:
    if name not in names:
        hint = near_misses(name, names) or f'there are {", ".join(names[:5])}{", ..." if len(names) > 5 else ""}'
        raise KeyError(f'teacher: expected {what} of {zoo} but got {name!r}; {hint}')
