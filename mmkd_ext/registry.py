"""Registry nodes of the package, under the scope ``mmkd_ext``.

A config writes ``type='mmkd_ext.X'`` under any ``default_scope``. mmengine then imports this module by its name and
the child's ``locations`` on first use, so neither ``custom_imports`` nor a host package is needed.
"""

try:
    from mmengine import registry as root
    from mmengine.config.utils import MODULE2PACKAGE
    from mmengine.registry import Registry
except ModuleNotFoundError as error:
    if error.name != 'mmengine':
        raise
    from mmkd_ext.environment import INSTALL_HINT

    raise ModuleNotFoundError(
        f'mmkd_ext.registry: expected mmengine but found none; {INSTALL_HINT}', name='mmengine'
    ) from None

__all__ = ['DATASETS', 'DATA_SAMPLERS', 'FUNCTIONS', 'HOOKS', 'METRICS', 'MODELS', 'OPTIM_WRAPPERS', 'TRANSFORMS']

_SCOPE = 'mmkd_ext'

# ``mmkd_ext::<path>`` in ``_base_`` and ``get_config``: mmengine knows the projects of OpenMMLab only. It looks for a
# distribution of the name that stands here, then for a module, beside which it takes ``.mim``. This module, not the
# distribution: of an editable install mmengine 0.10.7 takes the distribution to lie in site-packages.
MODULE2PACKAGE.setdefault(_SCOPE, __name__)

MODELS = Registry(
    'model',
    parent=root.MODELS,
    scope=_SCOPE,
    locations=['mmkd_ext.losses', 'mmkd_ext.heads', 'mmkd_ext.models'],
)
DATASETS = Registry('dataset', parent=root.DATASETS, scope=_SCOPE, locations=['mmkd_ext.datasets'])
TRANSFORMS = Registry('transform', parent=root.TRANSFORMS, scope=_SCOPE, locations=['mmkd_ext.transforms'])
FUNCTIONS = Registry('function', parent=root.FUNCTIONS, scope=_SCOPE, locations=['mmkd_ext.datasets'])
DATA_SAMPLERS = Registry('data sampler', parent=root.DATA_SAMPLERS, scope=_SCOPE, locations=['mmkd_ext.samplers'])
METRICS = Registry('metric', parent=root.METRICS, scope=_SCOPE, locations=['mmkd_ext.evaluation'])
HOOKS = Registry('hook', parent=root.HOOKS, scope=_SCOPE, locations=['mmkd_ext.hooks'])
OPTIM_WRAPPERS = Registry('optimizer wrapper', parent=root.OPTIM_WRAPPERS, scope=_SCOPE, locations=['mmkd_ext.engine'])
