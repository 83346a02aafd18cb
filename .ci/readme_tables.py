"""Write the tables of ``configs/*/README.md`` and ``docs/methods/README.md``; for developers of this package.

    python .ci/readme_tables.py

A config and the page of a method say at their top what they are. The tables are made of that, between two comments:

    <!-- table: configs -->                   every config of the folder
    <!-- table: configs, Stage one -->        those whose header begins so; several beginnings are separated by commas
    <!-- table: methods -->                   every page of the folder
    <!-- end of table -->
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r'(<!-- table: (configs|methods)(?:, ([^>]+))? -->\n).*?(<!-- end of table -->)', re.DOTALL)
PLACES = ('formula', 'module', 'configs', 'test', 'sampler')


def header_of(config: Path) -> str:
    """Return the docstring of a config, empty if it has none."""
    return ast.get_docstring(ast.parse(config.read_text())) or ''


def line_of(header: str, word: str) -> str:
    """Return what a header says behind ``'Cost: '`` or ``'Result: '``, empty if it says nothing."""
    return next((line.removeprefix(word) for line in header.splitlines() if line.startswith(word)), '')


def places_of(page: Path) -> dict[str, list[str]]:
    """Return the files that the page of a method names at its top: formula, module, configs, test, sampler.

    Raises:
        ValueError: If its fifth line does not name these five, in this order.
    """
    lines = page.read_text().splitlines()
    fields = lines[4].split(' · ') if len(lines) > 4 else []
    named = [re.match(r'\*\*(\w+)\*\* ', field) for field in fields]
    found = tuple(match[1].lower() for match in named if match)
    if found != PLACES:
        raise ValueError(
            f'readme_tables: expected the line of {", ".join(PLACES)} as line 5 of {page} but got {found}; '
            'write it as docs/methods/rkd.md does'
        )
    return {place: re.findall(r'`([^`]+)`', field) for place, field in zip(PLACES, fields, strict=True)}


def _rows_of_configs(folder: Path, beginnings: str | None) -> Iterator[str]:
    yield '| config | cost | result |'
    yield '|---|---|---|'
    begin = tuple(beginnings.split(', ')) if beginnings else ''
    for path in sorted(folder.glob('*.py')):
        header = header_of(path)
        if header.startswith(begin):
            yield f'| [`{path.name}`]({path.name}) | {line_of(header, "Cost: ")} | {line_of(header, "Result: ")} |'


def _rows_of_methods(folder: Path) -> Iterator[str]:
    yield '| word | compares | formula | module | configs | test | page |'
    yield '|---|---|---|---|---|---|---|'
    for page in sorted(folder.glob('[a-z]*.md')):
        title, _, compares = page.read_text().splitlines()[:3]
        files = [', '.join(f'`{name}`' for name in names) for names in places_of(page).values()]
        said = compares.removeprefix('Compares ').removesuffix('.')
        yield f'| {page.stem} | {said} | {" | ".join(files[:4])} | [{title.removeprefix("# ")}]({page.name}) |'


def with_tables(readme: Path) -> str:
    """Return the text of a README with all its tables made anew."""

    def made_anew(marked: re.Match) -> str:
        begin, kind, beginnings, end = marked.groups()
        rows = _rows_of_methods(readme.parent) if kind == 'methods' else _rows_of_configs(readme.parent, beginnings)
        return begin + '\n'.join(rows) + '\n' + end

    return MARKED.sub(made_anew, readme.read_text())


def readmes() -> list[Path]:
    """Return every README that has tables."""
    return [*sorted(ROOT.glob('configs/*/README.md')), ROOT / 'docs/methods/README.md']


def main() -> None:
    """Write what has changed, and say so."""
    for readme in readmes():
        text = with_tables(readme)
        if text != readme.read_text():
            readme.write_text(text)
            print(f'written: {readme.relative_to(ROOT)}')


if __name__ == '__main__':
    main()
