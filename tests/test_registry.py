import pytest
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope

from mmkd_ext import registry


@pytest.mark.parametrize('name', registry.__all__)
def test_each_node_is_a_child_of_its_mmengine_root_under_our_scope(name):
    node = getattr(registry, name)
    assert node.scope == 'mmkd_ext'
    assert node.parent.scope == 'mmengine'


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain'])
def test_a_prefixed_type_is_built_under_any_default_scope(scope):
    init_default_scope(scope)
    loss = ROOT_MODELS.build(dict(type='mmkd_ext.ClassRelationLoss', loss_weight=0.5))
    assert loss.loss_weight == 0.5


def test_nothing_is_taken_for_a_model_wrapper():
    """mmengine treats any class in a child of MODEL_WRAPPERS as DDP, and then moves nothing to the device."""
    assert not hasattr(registry, 'MODEL_WRAPPERS')
