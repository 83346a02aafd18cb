"""Hooks are tested in runs, as mmkd train makes them; ``case`` of tests/conftest.py builds the runners."""

import pytest
from mmengine.runner import CheckpointLoader

from mmkd_ext.checkpoint import register_safe_loader


@pytest.fixture(scope='package', autouse=True)
def _safe_loader():
    """The original mmengine cannot resume under torch >= 2.6 without it."""
    schemes = dict(CheckpointLoader._schemes)
    register_safe_loader()
    yield
    CheckpointLoader._schemes = schemes
