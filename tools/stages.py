"""Recipes of several stages: what a config needs trained before it, and where that lies.

A stage is any ``dict(config=..., checkpoint=...)`` in a config, wherever it stands: the teacher of ``DistillHook`` or
the first stage of a discovery run.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config


def dicts_in(node: Any) -> Iterator[dict]:
    """Yield ``node`` if it is a dict, and every dict inside, in dicts, lists and tuples of any depth."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from dicts_in(child)


def find_stages(cfg: Config) -> dict[str, str]:
    """Return ``{checkpoint: config}`` of every stage with a local checkpoint, in order of appearance."""
    return {
        node['checkpoint']: node['config']
        for node in dicts_in(cfg._cfg_dict.to_dict())
        if node.get('config') and node.get('checkpoint') and '://' not in node['checkpoint']
    }


def is_trained(checkpoint: str) -> bool:
    """Whether the checkpoint of a stage is there and whole.

    mmengine writes ``last_checkpoint`` after the file that it names. Where it stands and names an earlier epoch or
    iteration than this file's name does, the stage was cut off, perhaps while it wrote this very checkpoint.
    """
    path = Path(checkpoint)
    pointer = path.parent / 'last_checkpoint'
    if not path.is_file():
        return False
    own, last = _progress(path.name), _progress(pointer.read_text()) if pointer.is_file() else None
    return own is None or last is None or own <= last


def _progress(name: str) -> int | None:
    """Epoch or iteration in the name of a checkpoint; None for a name of another kind."""
    match = re.search(r'(?:epoch|iter)_(\d+)\.pth', name)
    return match and int(match[1])


def replace_everywhere(node: Any, old: str, new: str) -> Any:
    """Return ``node`` with every string equal to ``old`` replaced, in dicts, lists and tuples of any depth."""
    if isinstance(node, dict):
        return {key: replace_everywhere(value, old, new) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(replace_everywhere(value, old, new) for value in node)
    return new if isinstance(node, str) and node == old else node


def seeded_path(path: str, seed: int) -> str:
    """``work_dirs/x/epoch_40.pth`` -> ``work_dirs/x-seed3/epoch_40.pth``."""
    path = Path(path)
    return str(path.parent.with_name(f'{path.parent.name}-seed{seed}') / path.name)


def set_seed(cfg: Config, seed: int) -> Config:
    """Give the run and each of its stages this seed and, by its name, a folder of its own."""
    content = cfg._cfg_dict.to_dict()
    for checkpoint in find_stages(cfg):
        content = replace_everywhere(content, checkpoint, seeded_path(checkpoint, seed))
    content.setdefault('randomness', {})['seed'] = seed
    return Config(content, filename=cfg.filename)


def short_path(path: str) -> str:
    """The path as one would type it from here."""
    path, here = Path(path).resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
