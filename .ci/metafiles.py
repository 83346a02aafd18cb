"""Write ``model-index.yml`` and ``configs/<method>/metafile.yml``, by which ``mim search`` finds the configs.

    python .ci/metafiles.py

Everything comes from the names and headers of the configs. An entry has neither ``Weights`` nor ``Results``: none are
published, and results lie in ``docs/results`` with seeds and command.
"""

import ast
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
NOTE = '# Written by .ci/metafiles.py; no weights are published.\n'


def metafiles(root: Path = ROOT) -> dict[str, str]:
    """Return the text of the index and of every metafile, by their paths below ``root``."""
    methods = sorted(path.parent for path in (root / 'configs').glob('[!_]*/README.md'))
    texts = {f'configs/{method.name}/metafile.yml': _dump(_metafile(method)) for method in methods}
    return {'model-index.yml': _dump({'Import': list(texts)}), **texts}


def _metafile(method: Path) -> dict[str, Any]:
    name = (method / 'README.md').read_text().splitlines()[0].removeprefix('# ')
    collection = {'Name': name, 'README': f'configs/{method.name}/README.md'}
    return {'Collections': [collection], 'Models': [_model(path, name) for path in sorted(method.glob('*.py'))]}


def _model(path: Path, collection: str) -> dict[str, Any]:
    headline = (ast.get_docstring(ast.parse(path.read_text())) or '').splitlines()[0]
    paper = re.search(r'https?://[^\s),]+', headline)
    return {
        'Name': path.stem,
        'In Collection': collection,
        'Config': f'configs/{path.parent.name}/{path.name}',
        'Metadata': {'Training Data': path.stem.removesuffix('_on-device').rpartition('_')[2]},
        **({'Paper': paper[0]} if paper else {}),
    }


def _dump(content: dict[str, Any]) -> str:
    return NOTE + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


if __name__ == '__main__':
    for path, text in metafiles().items():
        (ROOT / path).write_text(text)
