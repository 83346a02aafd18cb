"""From folders of images to discovered classes: ``mmkd discover`` as a library."""

from mmkd_ext.discover.inference import (
    DiscoveryInferencer,
    PictureInput,
    Predictions,
    Predictor,
    export_backbone,
    export_onnx,
    find_model,
)
from mmkd_ext.discover.recipe import (
    OutFolder,
    Recipe,
    choose_recipe,
)
from mmkd_ext.discover.stage_configs import (
    discovery_config,
    representation_config,
    stage_one_config,
)
from mmkd_ext.discover.steps import Options, Steps

__all__ = [
    'DiscoveryInferencer',
    'Options',
    'OutFolder',
    'PictureInput',
    'Predictions',
    'Predictor',
    'Recipe',
    'Steps',
    'choose_recipe',
    'discovery_config',
    'export_backbone',
    'export_onnx',
    'find_model',
    'representation_config',
    'stage_one_config',
]
