"""Registry nodes of the package, under the scope ``mmkd_ext``.

A config writes ``type='mmkd_ext.X'`` under any ``default_scope``. mmengine then imports this module by its name and
the child's ``locations`` on first use, so neither ``custom_imports`` nor a host package is needed.
"""

try:
    from mmengine.config.utils import MODULE2PACKAGE
    from mmengine.registry import DATA_SAMPLERS as ROOT_DATA_SAMPLERS
    from mmengine.registry import DATASETS as ROOT_DATASETS
    from mmengine.registry import FUNCTIONS as ROOT_FUNCTIONS
    from mmengine.registry import HOOKS as ROOT_HOOKS
    from mmengine.registry import METRICS as ROOT_METRICS
    from mmengine.registry import MODELS as ROOT_MODELS
    from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
    from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
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
    parent=ROOT_MODELS,
    scope=_SCOPE,
    locations=['mmkd_ext.losses', 'mmkd_ext.heads', 'mmkd_ext.models'],
)
DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope=_SCOPE, locations=['mmkd_ext.datasets'])
TRANSFORMS = Registry('transform', parent=ROOT_TRANSFORMS, scope=_SCOPE, locations=['mmkd_ext.transforms'])
FUNCTIONS = Registry('function', parent=ROOT_FUNCTIONS, scope=_SCOPE, locations=['mmkd_ext.datasets'])
DATA_SAMPLERS = Registry('data sampler', parent=ROOT_DATA_SAMPLERS, scope=_SCOPE, locations=['mmkd_ext.samplers'])
METRICS = Registry('metric', parent=ROOT_METRICS, scope=_SCOPE, locations=['mmkd_ext.evaluation'])
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope=_SCOPE, locations=['mmkd_ext.hooks'])
OPTIM_WRAPPERS = Registry('optimizer wrapper', parent=ROOT_OPTIM_WRAPPERS, scope=_SCOPE, locations=['mmkd_ext.engine'])
