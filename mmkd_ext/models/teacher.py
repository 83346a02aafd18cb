"""Plain models by name, from the collections timm and torchvision."""

import importlib
import inspect
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from mmkd_ext.distill import FrozenTeacher, InputAdapter, Normalization
from mmkd_ext.distill.features import normalization_of
from mmkd_ext.models.build import build_model_from_config, is_published, load_weights, shown_config
from mmkd_ext.ops.arguments import near_misses
from mmkd_ext.registry import MODELS

__all__ = ['Teacher', 'build_teacher', 'build_zoo_model', 'check_teacher_spec', 'weights_command']


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
    arguments: dict[str, Any] = {'name': model} if isinstance(model, str) else dict(model)
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
        hint = near_misses(name, names) or f'list them with {zoo}'
        raise KeyError(f'teacher: expected a model of {zoo} but got {name!r}; {hint}')


# --------------------------------------------------------------------------------------------------
# Builds the teachers that a config describes, from whatever source.

_SOURCES = ('config', 'model', 'timm', 'torchvision')
_ZOOS = ('timm', 'torchvision')
_OPTIONS = ('mean', 'std', 'flip_channels', 'input_size', 'cache', 'compile')


@dataclass(frozen=True)
class Teacher:
    """A teacher, and what a report says of it.

    Attributes:
        frozen: The teacher itself.
        source: Where model and weights come from.
        num_parameters: Size of the model.
        loaded: How its weights came in.
    """

    frozen: FrozenTeacher
    source: str
    num_parameters: int
    loaded: str


def check_teacher_spec(spec: Mapping[str, Any], caller: str = 'teacher') -> None:
    """Refuse a description that :func:`build_teacher` could not follow.

    Raises:
        TypeError: Keys are unknown or missing.
    """
    sources = [source for source in _SOURCES if source in spec]
    unknown = sorted(set(spec) - {*_SOURCES, *_OPTIONS, 'checkpoint'})
    if len(sources) != 1 or 'checkpoint' not in spec or unknown:
        raise TypeError(
            f'{caller}: expected dict(config=..., checkpoint=...), or model=, timm= or torchvision= in place of '
            'config=, '
            f'with any of {_OPTIONS}, but got the keys {sorted(spec)}'
        )
    if ('mean' in spec) != ('std' in spec) or (sources[0] in _ZOOS and 'mean' not in spec):
        raise TypeError(
            f'{caller}: expected mean= and std= in the units of the pixels, 0 to 255, which a model of '
            f'{sources[0]} does '
            "not say by itself, or mean=None and std=None for the student's own, but got the keys "
            f'{sorted(spec)}; for ImageNet these are mean=(123.675, 116.28, 103.53) and std=(58.395, 57.12, 57.375)'
        )


def build_teacher(spec: Mapping[str, Any], taps: Iterable[str], student: nn.Module, caller: str = 'teacher') -> Teacher:
    """Build a teacher and load its weights.

    Args:
        spec: One source, ``config=`` (a path or ``'<package>::<path>'``), ``model=dict(type=...)``, ``timm=`` or
            ``torchvision=`` (:func:`~mmkd_ext.models.teacher.build_zoo_model`); ``checkpoint=`` a file, an http(s)
            address, or None to leave the model as its own ``init_cfg`` makes it; ``mean=`` and ``std=`` in place of
            those of its data preprocessor; ``flip_channels=`` whether it wants the student's channels reversed, in
            place of what the two preprocessors say; ``input_size=`` an int or (height, width);
            ``compile=True``, or keyword arguments of :func:`torch.compile`, to compile its forward;
            ``cache=`` is left to :func:`~mmkd_ext.engine.teacher_features.build_cached_teacher`.
        taps: What to record.
        student: The teacher's inputs are made from the inputs of this model.
        caller: Name of the teacher in messages.

    Raises:
        FileNotFoundError: The checkpoint is missing; the message has the command that makes it.
        KeyError: A tap names no module, or the source has no such model.
        ModuleNotFoundError: timm is not installed.
        RuntimeError: The checkpoint is of another architecture.
        ValueError: A tap is malformed, the checkpoint is refused or corrupt, or the teacher wants other channels.
    """
    source = next(source for source in _SOURCES if source in spec)
    checkpoint = spec['checkpoint']
    if checkpoint is not None and '://' not in str(checkpoint) and not Path(checkpoint).expanduser().is_file():
        raise FileNotFoundError(_how_to_get(source, spec, caller))
    # Initial weights drawn for the teacher must not shift the random numbers of the student's training.
    with torch.random.fork_rng(devices=[]):
        model: Any = _build_model(source, spec[source])
        if checkpoint is None and hasattr(model, 'init_weights'):
            model.init_weights()
    frozen = FrozenTeacher(
        model, taps, _input_adapter(spec, student, model, caller), caller, spec.get('compile', False)
    )
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Teacher(frozen, _name(source, spec[source]), num_parameters, _load(model, checkpoint, caller))


def _build_model(source: str, description: Any) -> nn.Module:
    if source == 'config':
        return build_model_from_config(description)
    return MODELS.build(description) if source == 'model' else build_zoo_model(source, description)


def _load(model: nn.Module, checkpoint: str | Path | None, caller: str) -> str:
    if checkpoint is None:
        return 'no checkpoint'
    report = load_weights(model, checkpoint, caller)
    unused = f' (not used: {", ".join(report.unexpected)})' if report.unexpected else ''
    return f'{report.matched} of {report.matched} from {checkpoint}{unused}'


def _name(source: str, description: Any) -> str:
    if source == 'config':
        return shown_config(description)
    if source == 'model':
        kind = description['type']
        return kind if isinstance(kind, str) else kind.__name__
    return f'{source} {description if isinstance(description, str) else dict(description)}'


def _how_to_get(source: str, spec: Mapping[str, Any], caller: str) -> str:
    checkpoint = str(spec['checkpoint'])
    message = f'{caller}: expected a checkpoint at {checkpoint} but found no file'
    if source == 'config' and is_published(spec['config']):
        return f'{message}; download the weights that the project publishes for {spec["config"]}'
    if source == 'config':
        work_dir = str(Path(checkpoint).parent)
        command = shlex.join(['mmkd', 'train', shown_config(spec['config']), '--work-dir', work_dir])
        return f'{message}; train it with `{command}`, or add --with-teacher to the command of this run'
    published = weights_command(source, spec[source], checkpoint) if source in _ZOOS else None
    return f'{message}; get the published weights with `{published}`' if published else message


def _input_adapter(spec: Mapping[str, Any], student: nn.Module, teacher: nn.Module, caller: str) -> InputAdapter:
    own = normalization_of(getattr(student, 'data_preprocessor', None)) or Normalization()
    wanted = normalization_of(getattr(teacher, 'data_preprocessor', None))
    flips_channels = (wanted or own).flips_channels
    if spec.get('mean') is not None:
        wanted = Normalization(tuple(spec['mean']), tuple(spec['std']))
    elif wanted is None:
        wanted = own
    if 'flip_channels' in spec:
        flips_channels = own.flips_channels != bool(spec['flip_channels'])
    wanted = Normalization(wanted.mean, wanted.std, flips_channels)
    size = spec.get('input_size')
    return InputAdapter(own, wanted, (size, size) if isinstance(size, int) else size and tuple(size), caller)
