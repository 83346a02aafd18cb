"""Every public name of ``public_names.txt`` is there; a new one is written down; none goes without two steps.

``python tests/policy/test_public_names.py`` adds the new ones to the list. Lines are taken out by hand.
"""

import importlib
import pkgutil
import warnings
from pathlib import Path

import mmkd_ext

LIST = Path(__file__).with_name('public_names.txt')


def packages() -> list[str]:
    found = pkgutil.walk_packages(mmkd_ext.__path__, 'mmkd_ext.')
    return ['mmkd_ext', 'mmkd_ext.registry', *(module.name for module in found if module.ispkg)]


def offered() -> set[str]:
    modules = map(importlib.import_module, packages())
    return {f'{module.__name__}.{name}' for module in modules for name in getattr(module, '__all__', ())}


def registered() -> set[str]:
    from mmkd_ext import registry

    names = set()
    for kind in registry.__all__:
        node = getattr(registry, kind)
        node.import_from_location()
        ours = (name for name, thing in node.module_dict.items() if thing.__module__.startswith('mmkd_ext.'))
        names |= {f'{kind}: mmkd_ext.{name}' for name in ours}
    return names


def written() -> list[str]:
    return LIST.read_text().split('\n')[:-1]


def test_every_public_name_is_there():
    missing = []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)  # what has moved says so, and works
        for name in written():
            package, _, public = name.rpartition('.')
            if ':' not in name and not hasattr(importlib.import_module(package), public):
                missing.append(name)
    assert missing == [], 'see mmkd_ext/deprecation.py'


def test_every_registered_name_is_there():
    assert {name for name in written() if ':' in name} == registered()


def test_the_list_has_every_public_name():
    assert offered() - set(written()) == set(), 'run python tests/policy/test_public_names.py'


def test_the_list_is_sorted():
    assert written() == sorted(set(written()))


def test_what_a_package_offers_is_public_in_its_module():
    hidden = []
    for name in offered():
        package, _, public = name.rpartition('.')
        home = getattr(getattr(importlib.import_module(package), public), '__module__', None)
        if (home or '').startswith('mmkd_ext.'):
            names = getattr(importlib.import_module(home), '__all__', [public])
            hidden += [] if public in names else [f'{home}.__all__ lacks {public}']
    assert hidden == []


if __name__ == '__main__':
    LIST.write_text(''.join(f'{name}\n' for name in sorted({*written(), *offered(), *registered()})))
