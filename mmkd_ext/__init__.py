"""Relation distillation and novel class discovery for OpenMMLab.

``import mmkd_ext`` is light: it reads package metadata, warns about a broken installation, and loads neither torch nor
mmengine. ``type='mmkd_ext.X'`` in a config finds everything else by itself (:mod:`mmkd_ext.registry`).
"""

import warnings

from mmkd_ext.environment import problems
from mmkd_ext.version import __version__

__all__ = ['__version__']

for _problem in problems():
    warnings.warn(f'mmkd_ext: {_problem}', stacklevel=2)
