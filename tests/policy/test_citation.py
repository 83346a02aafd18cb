"""The citation names the version that there is."""

import re
from pathlib import Path

import mmkd_ext

ROOT = Path(__file__).parents[2]


def test_version_of_the_citation():
    text = (ROOT / 'CITATION.cff').read_text()
    assert re.findall(r'^version: (.*)$', text, re.M) == [mmkd_ext.__version__]
