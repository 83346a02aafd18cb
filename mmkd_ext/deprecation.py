"""Names that moved keep working where they were, with a warning, until version 1.0.

The rule: a public name (``tests/policy/public_names.txt``) is taken away in two steps. First it moves or gets a
successor, the old name goes on working and warns, and the CHANGELOG says so under *Deprecated*; not before 1.0 is it
removed.
"""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def moved(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package from which names have moved.

    Nothing is imported before such a name is asked for, so a package may point to one that stands above it.

    Args:
        package: Where the names were, ``__name__`` of the caller.
        places: Module that has the names now -> the names, between spaces.

    Returns:
        A function of the name, for the package to call ``__getattr__``.
    """
    place_of = {name: module for module, names in places.items() for name in names.split()}

    def find(name: str) -> Any:
        module = place_of.get(name)
        if module is None:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        warnings.warn(
            f'{package}.{name} has moved to {module}.{name}; import it from there, the old place goes with version 1.0',
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(module), name)

    return find
