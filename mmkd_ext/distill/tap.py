"""Names of the tensors that distillation compares: ``'neck'``, ``'backbone[-1]'``, ``'head.fc:in'``."""

import difflib
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ['Tap']

_GRAMMAR = re.compile(r'(?P<path>[^\s\[\]:.]+(?:\.[^\s\[\]:.]+)*)(?P<input>:in)?(?:\[(?P<index>-?\d+)\])?')


@dataclass(frozen=True)
class Tap:
    """One tensor at one module of a model.

    Attributes:
        path: Name of the module as in ``model.named_modules()``.
        is_input: True for the input of the module, False for its output.
        index: Position in a tuple; None for a plain tensor or a tuple of one.
    """

    path: str
    is_input: bool = False
    index: int | None = None

    @classmethod
    def parse(cls, text: str) -> 'Tap':
        """Read ``path``, ``path[index]``, ``path:in`` or ``path:in[index]``.

        Raises:
            TypeError: ``text`` is not a string.
            ValueError: ``text`` does not follow the grammar.
        """
        if not isinstance(text, str):
            raise TypeError(f'tap: expected a string but got {text!r} of type {type(text).__name__}')
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise ValueError(
                f'tap: expected `module.path`, optionally followed by `:in` and `[index]`, but got {text!r}; '
                "write for example 'neck', 'backbone[-1]' or 'head.fc:in'"
            )
        index = match['index']
        return cls(match['path'], match['input'] is not None, None if index is None else int(index))

    def __str__(self) -> str:
        return self.path + (':in' if self.is_input else '') + ('' if self.index is None else f'[{self.index}]')

    def resolve(self, model: nn.Module, who: str) -> nn.Module:
        """Return the tapped module of ``model``.

        Raises:
            KeyError: ``model``, called ``who`` in the message, has no such module; near misses are listed.
        """
        modules = dict(model.named_modules())
        if self.path in modules:
            return modules[self.path]
        names = [name for name in modules if name]
        last_word = self.path.rpartition('.')[2]
        alike = [name for name in names if name.rpartition('.')[2] == last_word]
        near = list(dict.fromkeys(difflib.get_close_matches(self.path, names) + alike))[:5]
        hint = f'did you mean one of {near}?' if near else f'its children are {[n for n, _ in model.named_children()]}'
        raise KeyError(f'{who}: expected a module {self.path!r} (tap {str(self)!r}) but found none; {hint}')

    def pick(self, value: Any, who: str) -> torch.Tensor:
        """Return the tapped tensor of ``value``, what the module returned or received.

        Raises:
            TypeError: ``value`` is a longer tuple and the tap has no index, or what was picked is no tensor.
            IndexError: the tuple is shorter than the index asks for.
        """
        if isinstance(value, (tuple, list)):
            value = self._pick_item(value, who)
        elif self.index is not None:
            found = 'a tensor; drop the index' if isinstance(value, torch.Tensor) else type(value).__name__
            raise TypeError(f'{who}: tap {str(self)!r} expected a tuple but got {found}')
        if not isinstance(value, torch.Tensor):
            raise TypeError(f'{who}: tap {str(self)!r} expected a tensor but got {type(value).__name__}')
        return value

    def _pick_item(self, items: tuple | list, who: str) -> Any:
        if self.index is None:
            if len(items) != 1:
                raise TypeError(
                    f'{who}: tap {str(self)!r} expected a tensor but got a {type(items).__name__} of {len(items)}; '
                    f"choose an item, for example '{self}[-1]'"
                )
            return items[0]
        if not -len(items) <= self.index < len(items):
            raise IndexError(
                f'{who}: tap {str(self)!r} expected more than {len(items)} items; use an index in '
                f'[{-len(items)}, {len(items) - 1}]'
            )
        return items[self.index]
