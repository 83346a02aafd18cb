"""The command ``mmkd``: what it lists, and that the scripts in tools/ are the same functions."""

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mmkd_ext.__main__ import COMMANDS, main
from mmkd_ext.version import __version__

TOOLS = Path(__file__).parents[2] / 'tools'
SCRIPTS = {'num-classes': 'estimate_num_classes', 'convert': 'convert_checkpoint'}


def function(command):
    module, _, name = COMMANDS[command][0].partition(':')
    return getattr(importlib.import_module(module), name)


def test_help_lists_the_commands_and_loads_nothing_heavy():
    code = (
        'import sys, mmkd_ext.__main__ as m; m.main(["--help"]); '
        'print(sorted({"torch", "numpy", "mmengine"} & set(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == '[]'
    assert all(f'\n  {name} ' in done.stdout for name in COMMANDS)


def test_the_package_can_be_run_as_a_module():
    done = subprocess.run([sys.executable, '-m', 'mmkd_ext', '--version'], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == __version__


@pytest.mark.parametrize('command', COMMANDS)
def test_a_command_explains_itself_under_its_name(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, '--help'])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith(f'usage: mmkd {command} ')
    assert f'    mmkd {command} ' in output, 'no example'


def test_a_word_that_is_no_command():
    with pytest.raises(SystemExit, match="expected a command but got 'trian'; choose train"):
        main(['trian'])


@pytest.mark.parametrize('command', COMMANDS)
def test_the_scripts_call_the_same_functions(command):
    script = runpy.run_path(str(TOOLS / f'{SCRIPTS.get(command, command)}.py'), run_name='imported')
    assert function(command) in script.values()


@pytest.mark.parametrize(('command', 'words'), [('train', []), ('test', ['a.pth']), ('num-classes', ['a.pth'])])
def test_a_config_that_is_not_there_is_said_without_a_traceback(command, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, 'crkd_digits', *words])
    assert ended.value.code == 2
    assert 'did you mean crkd/crkd_convnet_80e_digits.py' in capsys.readouterr().err
