"""The site: the pages of this folder as they are, and a reference made from the docstrings.

Build it with ``bash tools/with_env.sh sphinx-build -W --keep-going docs docs/_build/html``. Every warning is an error,
and every cross reference to a name of ours must lead somewhere.
"""

import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

version_module = importlib.import_module('mmkd_ext.version')

project = 'mmkd_ext'
author = 'The mmkd_ext authors'
copyright = 'The mmkd_ext authors, Apache-2.0'  # noqa: A001
release = version = version_module.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.mathjax',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
]
exclude_patterns = ['_build', 'images']
root_doc = 'index'
nitpicky = True
nitpick_ignore_regex = [
    (r'py:.*', r'(?!mmkd_ext\.)\w+\..*'),  # other packages: their inventories are on the network, the build needs none
    (r'py:(class|exc)', r'\w+'),  # likewise, as annotations have them
    (r'py:class', r'mmkd_ext\..*\._\w+'),  # private classes and type variables, in signatures
    (r'py:class', r'mmkd_ext\.ops\.arguments\.Result'),  # a type variable
]

myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'deflist']
myst_heading_anchors = 3
myst_dmath_double_inline = True
copybutton_prompt_text = r'>>> |\.\.\. |\$ '
copybutton_prompt_is_regexp = True

autodoc_default_options = {'members': True, 'show-inheritance': True}
add_module_names = False  # the page has the name
autodoc_preserve_defaults = True
autodoc_typehints_format = 'short'
maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # the fields of a data class are members, too: one description of each is enough

html_theme = 'furo'
html_title = f'mmkd_ext {release}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_copy_source = False

# --------------------------------------------------------------------------------------------------
# Reference: one page per module, made anew in each build. (autosummary recurses by itself,
# but takes a module for the function that has its name, as in scores.)

REFERENCE = DOCS / 'api' / 'generated'


def _write_reference(_app: Any) -> None:
    """Write a page for every module, and remove those of modules that are gone."""
    package = importlib.import_module('mmkd_ext')
    names = ['mmkd_ext', *(module.name for module in pkgutil.walk_packages(package.__path__, 'mmkd_ext.'))]
    REFERENCE.mkdir(exist_ok=True)
    for name in names:
        children = [child for child in names if child.rpartition('.')[0] == name]
        text = _package_page(name, children) if children else _module_page(name)
        page = REFERENCE / f'{name}.rst'
        if not page.exists() or page.read_text() != text:
            page.write_text(text)
    for page in REFERENCE.glob('*.rst'):
        if page.stem not in names:
            page.unlink()


def _module_page(name: str) -> str:
    return f'{name}\n{"=" * len(name)}\n\n.. automodule:: {name}\n'


def _package_page(name: str, children: list[str]) -> str:
    """What the package is for, what it offers with a line on each, and its modules."""
    offered = [row for public in getattr(importlib.import_module(name), '__all__', ()) for row in _row(name, public)]
    lines = [name, '=' * len(name), '', f'.. automodule:: {name}', '   :no-members:', '']
    if offered:
        lines += ['.. rubric:: Public names', '', '.. list-table::', '   :widths: auto', '', *offered, '']
    lines += ['.. rubric:: Modules', '', '.. toctree::', '   :maxdepth: 1', '', *(f'   {child}' for child in children)]
    return '\n'.join([*lines, ''])


def _row(package: str, name: str) -> list[str]:
    home = _home(package, name)
    if home is None:
        return []
    summary = (inspect.getdoc(getattr(importlib.import_module(package), name)) or '').partition('\n')[0]
    summary = re.sub(r':\w+:`~?([^`]*)`', r'``\1``', summary)  # relative to where it was written
    return [f'   * - :py:obj:`{name} <{home}>`', f'     - {summary}']


# --------------------------------------------------------------------------------------------------
# References: a docstring names a thing as the code around it does, as an import does, or as a config does.


def _home(package: str, name: str) -> str | None:
    """Full name of what a package offers, by the module that defines it; None for constants and modules."""
    thing = getattr(importlib.import_module(package), name, None)
    module, qualified = getattr(thing, '__module__', None), getattr(thing, '__qualname__', None)
    return f'{module}.{qualified}' if module and qualified and module.startswith('mmkd_ext') else None


def _candidates(name: str) -> list[str]:
    """Full names that a public name may stand for."""
    parent, _, last = name.rpartition('.')
    if parent == 'mmkd_ext':  # as in type='mmkd_ext.X'
        from mmkd_ext import registry

        classes = (getattr(registry, child).get(name) for child in registry.__all__)
        return [f'{found.__module__}.{found.__qualname__}' for found in classes if found is not None]
    owner, _, class_name = parent.rpartition('.')
    try:
        return [home] if (home := _home(parent, last)) else []
    except ImportError:  # a method: the parent is a class
        return [f'{home}.{last}' for home in _candidates(parent)] if owner and class_name else []


def _resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Answer Sphinx, where a reference leads nowhere by itself."""
    target, module = node.get('reftarget', ''), node.get('py:module')
    if node.get('refdomain') != 'py' or not (target.startswith('mmkd_ext.') or module):
        return None
    domain = env.get_domain('py')
    for name in _candidates(target if target.startswith('mmkd_ext.') else f'{module}.{target}'):
        found = domain.resolve_xref(env, node['refdoc'], app.builder, 'obj', name, node, content)
        if found is not None:
            return found
    return None


_LINK = re.compile(r'(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)\)')


def _write_out_links(_app: Any, page: str, source: list[str]) -> None:
    """A link to a folder outside the docs has no page here: its path is written out instead."""

    def write_out(link: re.Match[str]) -> str:
        target = (DOCS / page).parent.joinpath(link[2]).resolve()
        if target.is_relative_to(DOCS) or not target.is_dir():
            return link[0]
        path = target.relative_to(ROOT).as_posix()
        return link[1] if path in link[1] else f'{link[1]} (`{path}/`)'

    source[0] = _LINK.sub(write_out, source[0])


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.connect('builder-inited', _write_reference)
    app.connect('source-read', _write_out_links)
    app.connect('missing-reference', _resolve)
