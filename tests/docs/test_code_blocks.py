"""What README and docs show works: scripts run, configs build, command lines parse.

A comment before a block, invisible on the page, says what a reader has and the page does not show:

    <!-- given: paths = ['a.png']; labels = [0] -->       code that runs before the block, also on several lines
    <!-- not run: needs CIFAR-100 -->                     and why
"""

import argparse
import ast
import inspect
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmkd_ext import registry

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *ROOT.glob('docs/**/*.md'), *ROOT.glob('configs/**/README.md')]
BLOCK = re.compile(r'(?P<notes>(?:^<!--(?:(?!-->).)*-->\n)*)^```(?P<language>\w+)\n(?P<code>.*?)^```', re.S | re.M)
NOTE = re.compile(r'<!-- *(given|not run):\s*(.*?)-->', re.S)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    code: str
    notes: dict[str, str]

    def __str__(self) -> str:
        return f'{self.page.relative_to(ROOT)}:{self.line}'

    @property
    def is_script(self) -> bool:
        return re.search(r'^(import|from) ', self.code, re.M) is not None

    @property
    def is_run(self) -> bool:
        return 'not run' not in self.notes

    @property
    def given(self) -> str:
        return inspect.cleandoc(self.notes.get('given', '')) + '\n'


def blocks(language: str) -> list[Block]:
    found = []
    for page in sorted(PAGES):
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text[: match.start('code')].count('\n') + 1
            notes = dict(NOTE.findall(match['notes']))
            if match['language'] == language:
                found.append(Block(page, line, language, match['code'], notes))
    return found


def test_every_block_says_its_language():
    """So none is left out; plain text is ``text``."""
    fence = re.compile(r'^ *```(.*)\n(?:.*\n)*?```$', re.M)
    infos = {(str(page.relative_to(ROOT)), info) for page in PAGES for info in fence.findall(page.read_text())}
    assert {info for info in infos if info[1].split()[:1] not in [['python'], ['bash'], ['text']]} == {
        ('docs/api/index.md', '{toctree}'),
        ('docs/changelog.md', '{include} ../CHANGELOG.md'),
        ('docs/contributing.md', '{include} ../CONTRIBUTING.md'),
        ('docs/index.md', '{toctree}'),
    }


SCRIPTS = [block for block in blocks('python') if block.is_script]
CONFIGS = [block for block in blocks('python') if block.is_run and not block.is_script]


@pytest.mark.filterwarnings('error:mmkd_ext:DeprecationWarning')
@pytest.mark.parametrize('block', SCRIPTS, ids=str)
def test_script(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = ast.parse(block.given + block.code, str(block))
    if not block.is_run:  # what it imports must be there all the same
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(tree, str(block), 'exec'), {'__name__': 'example'})


# --------------------------------------------------------------------------------------------------
# Fragments of configs


def read_config(block: Block, folder: Path) -> Config:
    """Read a fragment where its relative bases are found."""
    bases = re.findall(r"'(\.{1,2}/[^']+\.py)'", block.code)
    places = [place for place in sorted((ROOT / 'configs').iterdir()) if all((place / base).exists() for base in bases)]
    assert places, f'no folder of configs/ has all of {bases}'
    if bases:
        shutil.copytree(ROOT / 'configs', folder / 'configs')
        folder = folder / 'configs' / places[0].name
    file = folder / 'fragment.py'
    file.write_text(block.given + block.code)
    return Config.fromfile(file)


def dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from dicts(item)


def registered(name: str) -> type | None:
    return next((found for child in registry.__all__ if (found := getattr(registry, child).get(name))), None)


def check_arguments(name: str, settings: dict[str, Any]) -> None:
    cls = registered(name)
    assert cls is not None, f'{name} is not registered'
    parameters = inspect.signature(cls).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        assert set(settings) - {'type', '_delete_', '_scope_'} <= set(parameters), name


def is_term(value: Any) -> bool:
    return isinstance(value, dict) and 'loss' in value and bool({'tap', 'pairs'} & set(value))


def hooks_of(cfg: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Hooks to build: those of the fragment, and one around parts of one."""
    yield from (part for part in dicts(cfg) if part.get('type') in ('mmkd_ext.DistillHook', 'mmkd_ext.GenerationHook'))
    terms = {**cfg.get('terms', {}), **{name: value for name, value in cfg.items() if is_term(value)}}
    if terms or 'teacher' in cfg or 'schedule' in cfg:
        loss = dict(type='mmkd_ext.SPLoss')
        terms = terms or dict(sp=dict(tap='neck', loss=loss, schedule=cfg.get('schedule', {})))
        teacher = cfg.get('teacher', dict(config='teacher.py', checkpoint='teacher.pth'))
        yield dict(type='mmkd_ext.DistillHook', teacher=teacher, terms=terms)


@pytest.mark.parametrize('block', CONFIGS, ids=str)
def test_config(block, tmp_path):
    cfg = read_config(block, tmp_path)
    for part in dicts(cfg._cfg_dict.to_dict()):
        if str(part.get('type', '')).startswith('mmkd_ext.'):
            check_arguments(part['type'], part)
    for hook in hooks_of(cfg._cfg_dict.to_dict()):
        registry.HOOKS.build(hook)  # refuses unknown keys of teachers and terms, and builds the losses


# --------------------------------------------------------------------------------------------------
# Command lines. Bash itself expands them; what it would start is written down, and then parsed by
# the parser of the script.

COMMANDS = ('python', 'bash', 'pip', 'mim', 'mmkd', 'npm', 'torchrun', 'ruff', 'sphinx-build')
END = '\x1e'
RECORD = 'set -eu; ' + ' '.join(f'{name}() {{ printf "%s\\0" {name} "$@" {END}; }};' for name in COMMANDS)
STANDS_FOR = {
    'CONFIG': 'configs/crkd/crkd_convnet_80e_digits.py',
    'what_is_in_photos/configs/discovery.py': 'configs/crkd/crkd_convnet_80e_digits.py',  # the tool has written it
    'TABLE': 'ncd-cifar100-20',
}


class ParsedError(Exception):
    """The command line was understood; nothing is to be run."""


def commands(block: Block) -> list[list[str]]:
    done = subprocess.run(
        ['/bin/bash', '-c', RECORD + '\nPATH=\n' + block.given + block.code],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split('\0')[:-1] for line in done.stdout.split(f'{END}\0')[:-1]]
    return [[STANDS_FOR.get(word, word) for word in line] for line in lines]


def script_of(words: list[str]) -> list[str]:
    """Script and arguments that a command line ends in: launchers and environments are taken away."""
    match words:
        case ['bash', 'tools/with_env.sh', *rest]:
            return script_of(rest)
        case ['bash', 'tools/dist_train.sh', config, _, *rest]:
            return ['tools/train.py', config, *rest]
        case ['bash', 'tools/dist_test.sh', config, checkpoint, _, *rest]:
            return ['tools/test.py', config, checkpoint, *rest]
        case ['bash', 'tools/slurm_train.sh', _, _, config, *rest]:
            return ['tools/train.py', config, *rest]
        case ['torchrun', '--standalone', '--nproc-per-node', _, *rest]:
            return script_of(['python', *rest])
        case ['mmkd', *rest] | ['python', '-m', 'mmkd_ext', *rest]:
            return ['mmkd_ext/__main__.py', *rest]
        case ['python', script, *rest] if script.endswith('.py'):
            return [script, *rest]
    return []


def parse(script: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script up to the point where it has read its command line."""
    original = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *args: Any) -> None:
        original(self, *args)
        raise ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_args', parse_and_stop)
        patch.setattr(sys, 'argv', script)
        patch.syspath_prepend(ROOT / Path(script[0]).parent)
        patch.chdir(ROOT)
        with pytest.raises(ParsedError):
            runpy.run_path(str(ROOT / script[0]), run_name='__main__')


@pytest.mark.parametrize('block', [block for block in blocks('bash') if block.is_run], ids=str)
def test_command(block, monkeypatch):
    lines = commands(block)
    assert lines, 'no command'
    for words in lines:
        for word in words:
            if word.startswith(('configs/', 'tests/', 'tools/', 'benchmarks/', 'reproduce/')):
                assert (ROOT / word).exists(), word
        for extra in re.findall(r'\[(\w+)\]', ' '.join(words) if words[0] == 'pip' else ''):
            assert f"'{extra}': [" in (ROOT / 'setup.py').read_text(), extra
        if script := script_of(words):
            parse(script, monkeypatch)
