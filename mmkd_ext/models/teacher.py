"""Teachers as a config describes them: model, weights, what it wants its inputs to be, classes that it knows."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmkd_ext.distill import FrozenTeacher, InputAdapter, Normalization
from mmkd_ext.distill.inputs import NORMALIZE_ONCE, Pixels, pixels_of, pixels_of_dataset
from mmkd_ext.models.build import build_model_from_config, is_published, read_config, shown_config
from mmkd_ext.models.weights import LoadReport, load_weights
from mmkd_ext.models.zoo import ZOOS, build_zoo_model, weights_command, zoo_normalization
from mmkd_ext.registry import MODELS

__all__ = ['Teacher', 'build_teacher', 'build_zoo_model', 'check_teacher_spec', 'weights_command']

_SOURCES = ('config', 'model', *ZOOS)
_OPTIONS = ('prefix', 'mean', 'std', 'flip_channels', 'input_size', 'classes', 'cache', 'compile')


@dataclass(frozen=True)
class Teacher:
    """A teacher, and what a report says of it.

    Attributes:
        frozen: The teacher itself.
        source: Where model and weights come from.
        num_parameters: Size of the model.
        loaded: How its weights came in.
        classes: Names of the classes that its logits are of, as far as one knows.
    """

    frozen: FrozenTeacher
    source: str
    num_parameters: int
    loaded: str
    classes: tuple[str, ...] | None = None


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
    if ('mean' in spec) != ('std' in spec) or (spec.get('mean') is None) != (spec.get('std') is None):
        raise TypeError(f'{caller}: expected {_MEAN_AND_STD}, but got the keys {sorted(spec)}; give both or neither')


_MEAN_AND_STD = (
    'mean= and std= in the units of the pixels, 0 to 255, or mean=None and std=None for the inputs of the student as '
    'they are'
)


def build_teacher(
    spec: Mapping[str, Any], taps: Iterable[str], student: nn.Module, caller: str = 'teacher', dataset: Any = None
) -> Teacher:
    """Build a teacher and load its weights.

    Args:
        spec: One source, ``config=`` (a path or ``'<package>::<path>'``), ``model=dict(type=...)``, ``timm=`` or
            ``torchvision=`` (:func:`~mmkd_ext.models.zoo.build_zoo_model`); ``checkpoint=`` a file, an http(s)
            address, or None to leave the model as its own ``init_cfg`` makes it; ``prefix=`` where in the file its
            weights lie (:func:`~mmkd_ext.models.weights.load_weights`); ``mean=`` and ``std=`` in place of what it says
            itself, None for the student's inputs as they are; ``flip_channels=`` whether it wants the student's
            channels reversed, in place of what the two preprocessors say; ``input_size=`` an int or (height, width);
            ``classes=`` the names of its classes in place of those in the checkpoint, None not to compare them;
            ``compile=True``, or keyword arguments of :func:`torch.compile`, to compile its forward;
            ``cache=`` is left to :func:`~mmkd_ext.engine.teacher_features.build_cached_teacher`.
        taps: What to record.
        student: The teacher's inputs are made from the inputs of this model.
        caller: Name of the teacher in messages.
        dataset: What the student's samples come from: its pipeline may normalize them.

    Raises:
        FileNotFoundError: The checkpoint is missing; the message has the command that makes it.
        KeyError: A tap names no module, or the source has no such model.
        ModuleNotFoundError: timm is not installed.
        RuntimeError: The checkpoint is of another architecture.
        ValueError: A tap is malformed, the checkpoint is refused or corrupt, or the teacher wants other channels; or it
            is not known how its inputs or the student's are to be normalized.
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
    seen = pixels_of(getattr(student, 'data_preprocessor', None), dataset)
    adapter = _input_adapter(spec, seen, _pixels_wanted(source, spec, model, seen.normalization, caller), caller)
    frozen = FrozenTeacher(model, taps, adapter, caller, spec.get('compile', False))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    report = None if checkpoint is None else load_weights(model, checkpoint, caller, spec.get('prefix'))
    classes = spec.get('classes', report and report.classes)
    return Teacher(
        frozen,
        _name(source, spec[source]),
        num_parameters,
        _describe(report, checkpoint),
        None if classes is None else tuple(map(str, classes)),
    )


def _build_model(source: str, description: Any) -> nn.Module:
    if source == 'config':
        return build_model_from_config(description)
    return MODELS.build(description) if source == 'model' else build_zoo_model(source, description)


def _describe(report: LoadReport | None, checkpoint: str | Path | None) -> str:
    if report is None:
        return 'no checkpoint'
    notes = [f'not used: {", ".join(report.unexpected)}'] if report.unexpected else []
    if report.others:
        here = f'those under {report.prefix!r}' if report.prefix else 'those without prefix'
        notes.append(f'{here}; others under {", ".join(map(repr, report.others))}')
    text = f'{report.matched} of {report.matched} from {checkpoint}'
    return f'{text} ({"; ".join(notes)})' if notes else text


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
    published = weights_command(source, spec[source], checkpoint) if source in ZOOS else None
    return f'{message}; get the published weights with `{published}`' if published else message


def _pixels_wanted(
    source: str, spec: Mapping[str, Any], teacher: nn.Module, own: Normalization, caller: str
) -> Pixels | None:
    """Return what the teacher was trained on; None for the student's inputs as they are.

    Where nothing is said of the order of channels, it is that of the student's, which ``own`` has.
    """
    if 'mean' in spec and spec['mean'] is None:
        return None
    if source not in ZOOS:
        before = _pixels_in_config(spec[source]) if source == 'config' else Pixels()
        after = pixels_of(getattr(teacher, 'data_preprocessor', None))
        said = Pixels(before.normalization.then(after.normalization), before.doubt)
        if 'mean' not in spec:
            return None if said == Pixels() else said
        order = own if said == Pixels() else said.normalization
        return Pixels(Normalization(tuple(spec['mean']), tuple(spec['std']), order.flips_channels))
    if 'mean' in spec:
        return Pixels(Normalization(tuple(spec['mean']), tuple(spec['std']), own.flips_channels))
    said_by_zoo = zoo_normalization(source, spec[source])
    if said_by_zoo is None:
        raise ValueError(
            f'{caller}: expected {_MEAN_AND_STD}, as {source} does not say what {spec[source]} was trained on; for '
            'ImageNet these are mean=(123.675, 116.28, 103.53) and std=(58.395, 57.12, 57.375)'
        )
    return Pixels(Normalization(said_by_zoo.mean, said_by_zoo.std, own.flips_channels))


def _pixels_in_config(config: str | Path) -> Pixels:
    """What the data pipeline of a training does to pixels."""
    cfg = read_config(config)
    loaders = [cfg.get(f'{name}_dataloader') for name in ('train', 'val', 'test')]
    return next(
        (pixels_of_dataset(loader['dataset']) for loader in loaders if loader and 'dataset' in loader), Pixels()
    )


def _input_adapter(spec: Mapping[str, Any], seen: Pixels, wanted: Pixels | None, caller: str) -> InputAdapter:
    own, teachers = seen.normalization, wanted.normalization if wanted else seen.normalization
    if wanted and wanted.doubt:
        raise ValueError(f'{caller}: expected {_MEAN_AND_STD}, but {wanted.doubt}')
    if wanted and seen.doubt:
        raise ValueError(
            f"{caller}: expected to know how the student's inputs are normalized but {seen.doubt}; {NORMALIZE_ONCE}"
        )
    flips = teachers.flips_channels
    if 'flip_channels' in spec:
        flips = own.flips_channels != bool(spec['flip_channels'])
    size = spec.get('input_size')
    return InputAdapter(
        own,
        Normalization(teachers.mean, teachers.std, flips),
        (size, size) if isinstance(size, int) else size and tuple(size),
        caller,
        expects_pixels=seen.are_raw,
    )
