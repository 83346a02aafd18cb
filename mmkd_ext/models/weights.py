"""Weights of a file into a model: found under what training codes wrap around them, loaded by the model's own hooks."""

import re
import sys
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmkd_ext.checkpoint import load_checkpoint_safely

__all__ = [
    'WRAPPERS',
    'LoadReport',
    'Weights',
    'classes_in',
    'find_weights',
    'load_weights',
    'named_classes',
    'part_of',
    'state_dicts',
    'surplus_entries',
]

WRAPPERS = (
    *('state_dict', 'model_state_dict', 'model_state', 'model', 'net', 'network', 'weights', 'params'),
    *('architecture', 'student', 'student_state_dict'),  # of mmrazor and of distillers: what they have trained
    *('state_dict_ema', 'model_ema', 'ema_state_dict', 'ema_model', 'params_ema', 'ema'),
    'teacher',
)
"""Words that training codes put before a model's own names, as entries of a file or as prefixes of names.

Where weights of the model lie under several, the first of these counts.
"""

_AROUND_A_MODULE = ('module', '_orig_mod', '_forward_module', '_fsdp_wrapped_module', '_checkpoint_wrapped_module')
"""What DDP, ``torch.compile``, Lightning, FSDP and activation checkpointing call the module that they wrap."""

_DEPTH = 3
"""Entries within entries that are looked into."""


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_weights` did.

    Attributes:
        matched: Number of entries of the model's state dict that are in place: all of them.
        unexpected: Entries of the file that the model has no place for.
        prefix: What stands before the model's names in the file, entries and prefixes alike: ``'state_dict.'``.
        others: Where else in the file weights of the same names and shapes lie.
        classes: Names of the classes that the file says it was trained on, in their order; None if it says nothing.
    """

    matched: int
    unexpected: list[str]
    prefix: str = ''
    others: list[str] = field(default_factory=list)
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Weights:
    """A part of a file whose names are, as far as one can tell before loading, those of a model.

    Attributes:
        prefix: What stands before the names in the file, entries and prefixes alike.
        entries: Tensors by the model's names.
        num_fitting: How many entries of the model are there, with the right shape.
        num_named: How many are there, whatever their shape.
    """

    prefix: str
    entries: Mapping[str, Any]
    num_fitting: int
    num_named: int

    @property
    def is_known(self) -> bool:
        """Whether nothing but known wrappers stands before the names."""
        return set(_words(self.prefix)) <= {*WRAPPERS, *_AROUND_A_MODULE}

    @property
    def rank(self) -> int:
        """Place of the last wrapper in ``WRAPPERS``."""
        return max((WRAPPERS.index(word) for word in _words(self.prefix) if word in WRAPPERS), default=0)


def load_weights(model: nn.Module, path: str | Path, caller: str = 'model', prefix: str | None = None) -> LoadReport:
    """Load every parameter and buffer of ``model`` from a checkpoint, safely.

    The weights may lie under any of ``WRAPPERS``, and under what DDP, FSDP and ``torch.compile`` put before names,
    in any order. They are loaded as the model wants it: its hooks may rename and resize entries, or make some anew and
    drop those of the file; where a model of timm does not take them as they are, timm's own filter may change them.
    What does not fit then is refused. Whole parts that only the file has are allowed: a teacher may lack the head that
    its checkpoint was trained with.

    Args:
        model: Any model.
        path: What :func:`~mmkd_ext.checkpoint.load_checkpoint_safely` takes.
        caller: Name of the model in messages.
        prefix: Where in the file the weights lie, such as ``'backbone.'``, or ``'teacher.backbone.'`` for those of an
            entry ``teacher``; None to look for them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is refused or corrupt (:func:`~mmkd_ext.checkpoint.load_checkpoint_safely`).
        RuntimeError: The file lacks an entry of the model, one has another shape, or the file has more of a part than
            the model has, as that of a deeper network does; the message says where else the weights seem to lie.
    """
    checkpoint = load_checkpoint_safely(path)
    found = find_weights(model, checkpoint, prefix)
    if not found:
        raise RuntimeError(
            f'{caller}: expected weights under the prefix {prefix!r} but {path} has none; its names begin with '
            f'{_some(_beginnings(checkpoint))}'
        )
    best, others = found[0], found[1:]
    alike = [weights.prefix for weights in others if weights.num_fitting and weights.num_fitting >= best.num_fitting]
    if alike and prefix is None and not best.is_known:
        raise RuntimeError(
            f'{caller}: expected the weights of one {type(model).__name__} but {path} has several, under the prefixes '
            f'{", ".join(map(repr, [best.prefix, *alike]))}; give one to a teacher as prefix=..., or save it alone'
        )
    problem, unexpected = _load(model, best.entries)
    if problem:
        filtered = _filtered_by_timm(model, best.entries)
        if filtered is not None:
            new_problem, unexpected = _load(model, filtered)
            problem = new_problem and problem
    if problem:
        raise RuntimeError(_complaint(model, problem, best, others, f'{caller}: expected the weights of', path))
    return LoadReport(len(model.state_dict()), unexpected, best.prefix, alike, named_classes(checkpoint))


def find_weights(model: nn.Module, checkpoint: Mapping[str, Any], prefix: str | None = None) -> list[Weights]:
    """Return the parts of a checkpoint whose names are those of a model, the likeliest first.

    Those behind nothing but known wrappers come first, of these the one with most entries that fit, and of equal ones
    that of the first wrapper.

    Args:
        model: The model.
        checkpoint: What :func:`~mmkd_ext.checkpoint.load_checkpoint_safely` returns.
        prefix: Look only where this, whatever known wrappers stand before it, begins a name.

    Returns:
        Nothing only where there is a prefix and no name begins with it.
    """
    own = model.state_dict()
    keeps = {word for name in own for word in _words(name)}
    found: list[Weights] = []
    for place, entries in state_dicts(checkpoint):
        plain = _without_words(entries, set(_AROUND_A_MODULE) - keeps)
        if prefix is None:
            before = dict.fromkeys(['', *_prefixes(own, plain)])
            found += [_under(place, start, plain, own) for start in before]
        else:
            starts = dict.fromkeys(start for name in plain if (start := _start(place, name, prefix)) is not None)
            found += [_under(place, start, plain, own) for start in starts]
    if prefix is None and not found:
        found = [_under('', '', checkpoint, own)]
    known = prefix is not None
    return sorted(
        found, key=lambda w: (not (known or w.is_known), -w.num_fitting, -w.num_named, w.rank, len(_words(w.prefix)))
    )


def state_dicts(checkpoint: Mapping[str, Any], place: str = '') -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every dict of tensors in a checkpoint, and where: ``''`` for the checkpoint itself, ``'model.'``."""
    if any(isinstance(name, str) and isinstance(value, Tensor) for name, value in checkpoint.items()):
        yield place, checkpoint
    for name, value in checkpoint.items():
        if isinstance(name, str) and isinstance(value, Mapping) and place.count('.') < _DEPTH:
            yield from state_dicts(value, f'{place}{name}.')


def surplus_entries(own: Iterable[str], found: Iterable[str]) -> list[str]:
    """Return the entries of a checkpoint for which a part of the model has no place, as a deeper network's.

    Whole parts that only the checkpoint has do not count.

    Args:
        own: Names in the state dict of the model.
        found: Names in that of the checkpoint.
    """
    own = set(own)
    parts = {part_of(name) for name in own}
    return [name for name in found if name not in own and part_of(name) in parts]


def part_of(name: str) -> str:
    """Return the first word of an entry's name, which is an attribute of the model."""
    return name.partition('.')[0]


def named_classes(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the classes that a checkpoint of OpenMMLab was trained on, in the order of its logits."""
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    return classes_in(meta.get('dataset_meta', meta))


def classes_in(metainfo: Any) -> tuple[str, ...] | None:
    """Return the names of the classes in the metainfo of a data set, without those that a discovery has made up."""
    if not isinstance(metainfo, Mapping):
        return None
    classes = metainfo.get('classes', metainfo.get('CLASSES'))  # the latter of versions before 2022
    return tuple(map(str, classes))[: metainfo.get('num_known')] if isinstance(classes, (list, tuple)) else None


# --------------------------------------------------------------------------------------------------
# Loading, and what does not fit.


def _load(model: nn.Module, entries: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Load as the model wants it; return what does not fit, and what of the file has no place."""
    try:
        result = model.load_state_dict(entries, strict=False)
        missing = list(result.missing_keys)
        if missing:
            # What is missing although it is there is dropped on purpose: the model makes it itself.
            own = model.state_dict()
            filled = _like(entries, {**entries, **{name: own[name] for name in missing if name in own}})
            made_anew = set(model.load_state_dict(filled, strict=False).missing_keys)
            missing = [name for name in missing if name not in made_anew]
    except RuntimeError as error:
        return str(error), []
    unexpected = list(result.unexpected_keys)
    names = model.state_dict().keys()
    if not missing and not surplus_entries(names, unexpected):
        return '', unexpected
    num_matched = len(names & entries.keys())
    return (
        f'{num_matched} of {len(names)} entries match, missing are {_some(missing)}, unexpected are {_some(unexpected)}'
    ), unexpected


def _filtered_by_timm(model: nn.Module, entries: Mapping[str, Any]) -> dict[str, Any] | None:
    """What timm makes of published weights before it loads them: other names, position embeddings for another size."""
    module = type(model).__module__
    change = getattr(sys.modules.get(module), 'checkpoint_filter_fn', None)
    if not module.startswith('timm.') or change is None:
        return None
    try:
        return change(dict(entries), model)
    except (AttributeError, AssertionError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return None  # weights of another architecture, which is said in our own words


def _complaint(
    model: nn.Module, problem: str, best: Weights, others: list[Weights], expected: str, path: str | Path
) -> str:
    kind, num_entries = type(model).__name__, len(model.state_dict())
    most = max((weights.num_fitting for weights in others), default=0)
    places = ' and '.join(repr(weights.prefix) for weights in others if weights.num_fitting == most)
    remedy = 'give that to a teacher as prefix=..., or save these entries alone and without it'
    if most == num_entries:
        return f'{expected} a {kind} but in {path} all {most} entries match under the prefix {places} alone; {remedy}'
    message = f'{expected} a {kind} but {path} is of another architecture; {problem}'
    return f'{message}; {most} match under the prefix {places}: {remedy}' if most > best.num_fitting else message


# --------------------------------------------------------------------------------------------------
# Names.


def _words(name: str) -> list[str]:
    return [word for word in name.split('.') if word]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ', '.join(names[:10]) + (f' and {len(names) - 10} more' if len(names) > 10 else '') if names else 'none'


def _beginnings(checkpoint: Mapping[str, Any]) -> list[str]:
    """How the names in a file begin, in the order of their first appearance."""
    return list(dict.fromkeys(f'{place}{part_of(name)}' for place, found in state_dicts(checkpoint) for name in found))


def _prefixes(own: Mapping[str, Any], entries: Mapping[str, Any]) -> list[str]:
    """What stands before names of the model, from the most to the least frequent, at most ten."""
    counts: Counter[str] = Counter()
    for name in entries:
        words = name.split('.')
        for num_words in range(len(words)):
            if '.'.join(words[num_words:]) in own:
                counts['.'.join([*words[:num_words], ''])] += 1
    return [prefix for prefix, _ in counts.most_common(10)]


def _start(place: str, name: str, prefix: str) -> str | None:
    """Return the beginning of ``name`` that ends with ``prefix``, which may begin in the name of an entry."""
    words = [word for word in _words(prefix) if word not in _AROUND_A_MODULE]
    wanted = ''.join(f'{re.escape(word)}\\.' for word in words)
    match = re.match(rf'(?:(?:{"|".join(WRAPPERS)})\.)*{wanted}', place + name)
    return name[: max(match.end() - len(place), 0)] if match else None


def _under(place: str, start: str, entries: Mapping[str, Any], own: Mapping[str, Any]) -> Weights:
    inside = entries
    if start:
        cut = {name.removeprefix(start): value for name, value in entries.items() if name.startswith(start)}
        inside = _like(entries, cut, start)
    named = [name for name in own if name in inside]
    fitting = [name for name in named if getattr(inside[name], 'shape', None) == getattr(own[name], 'shape', None)]
    return Weights(place + start, inside, len(fitting), len(named))


def _without_words(entries: Mapping[str, Any], words: set[str]) -> Mapping[str, Any]:
    """Leave words out of all names, unless two would become one."""

    def shorten(name: str) -> str:
        return '.'.join(word for word in name.split('.') if word not in words)

    if not any(word in words for name in entries for word in str(name).split('.')):
        return entries
    short = {shorten(str(name)): value for name, value in entries.items()}
    if len(short) < len(entries):
        return entries
    metadata = getattr(entries, '_metadata', None)
    result: Any = OrderedDict(short)
    if metadata is not None:
        result._metadata = OrderedDict((shorten(name), value) for name, value in metadata.items())
    return result


def _like(entries: Mapping[str, Any], new: Mapping[str, Any], start: str = '') -> Mapping[str, Any]:
    """Keep the versions of modules, which their hooks ask for."""
    metadata = getattr(entries, '_metadata', None)
    if metadata is None:
        return new
    result: Any = OrderedDict(new)
    result._metadata = OrderedDict(
        (f'{name}.'.removeprefix(start).removesuffix('.'), value)
        for name, value in metadata.items()
        if f'{name}.'.startswith(start)
    )
    return result
