"""The examples of docstrings run and print what they say; every function of the papers' maths has one."""

import doctest
import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

import mmkd_ext
from mmkd_ext import functional

PACKAGE = Path(mmkd_ext.__file__).parent
MODULES = [
    '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)
    for path in sorted(PACKAGE.rglob('*.py'))
    if '>>> ' in path.read_text()
]


@pytest.mark.parametrize('name', MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name), extraglobs={'np': np, 'torch': torch})
    assert result.failed == 0


def test_every_function_has_an_example():
    functions = [getattr(functional, name) for name in functional.__all__]
    assert [function.__name__ for function in functions if '>>> ' not in inspect.getdoc(function)] == []
