import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from mmkd_ext.models.teacher import build_model_from_config, load_weights

CONFIG = """
default_scope = '{scope}'
model = dict(type='ImageClassifier', backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8),
             neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=3, in_channels=64))
data_preprocessor = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True)
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(scope='mmpretrain'))
    return path


def test_builds_under_the_scope_of_the_config_whatever_the_default_scope(config):
    DefaultScope.get_instance('other', scope_name='mmkd_ext')
    model = build_model_from_config(config)
    assert type(model).__name__ == 'ImageClassifier'
    assert model.backbone.depth == 18


def test_takes_the_data_preprocessor_beside_the_model(config):
    assert build_model_from_config(config).data_preprocessor.mean.flatten().tolist() == [1, 2, 3]


def test_builds_from_a_config_inside_a_package():
    model = build_model_from_config('mmpretrain::resnet/resnet18_8xb16_cifar10.py')
    assert model.head.num_classes == 10
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx([125.307, 122.961, 113.8575])


def test_missing_config(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing\.py'):
        build_model_from_config(tmp_path / 'nothing.py')


def test_config_without_a_model(tmp_path):
    (tmp_path / 'config.py').write_text('a = 1')
    with pytest.raises(ValueError, match=r"expected a config with a model but .*config\.py has \['a'\]"):
        build_model_from_config(tmp_path / 'config.py')


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def prefixed(prefix):
    return lambda weights: {'state_dict': {prefix + name: value for name, value in weights.items()}}


@pytest.mark.parametrize(
    'wrap',
    [
        lambda weights: {'state_dict': weights, 'meta': {}},
        lambda weights: {'model': weights, 'epoch': 3},
        lambda weights: weights,
        prefixed('module.'),
        prefixed('_orig_mod.'),
        prefixed('module._orig_mod.'),
    ],
)
def test_loads_every_entry_and_reports_what_is_left(tmp_path, model, wrap):
    source = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    torch.save(wrap(source.state_dict()), tmp_path / 'a.pth')
    report = load_weights(model, tmp_path / 'a.pth')
    assert report.matched == 7
    assert report.unexpected == ['2.weight', '2.bias']
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


@pytest.mark.parametrize(
    ('weights', 'message'),
    [
        ({'x': torch.ones(1)}, r'0 of 7 entries match, missing are 0\.weight, .*, unexpected are x$'),
        ({'0.weight': torch.ones(3, 2)}, r'1 of 7 entries match, missing are 0\.bias, .*, unexpected are none$'),
        ({'0.weight': torch.ones(4, 2)}, r'size mismatch for 0\.weight'),
        ({f'x{i:02}': torch.ones(1) for i in range(13)}, r'unexpected are x00, .*x09 and 3 more'),
    ],
)
def test_checkpoint_of_another_architecture(tmp_path, model, weights, message):
    torch.save({'state_dict': weights}, tmp_path / 'a.pth')
    with pytest.raises(
        RuntimeError, match=rf'(?s)teacher: .* Sequential .*a\.pth is of another architecture; .*{message}'
    ):
        load_weights(model, tmp_path / 'a.pth', caller='teacher')


def test_checkpoint_of_a_deeper_network(tmp_path):
    """All that the model has is in the file, with the right shapes: the weights would load, and be wrong."""
    shallow, deep = (nn.Sequential(nn.Sequential(*[nn.Linear(3, 3) for _ in range(depth)])) for depth in (2, 3))
    torch.save(deep.state_dict(), tmp_path / 'a.pth')
    with pytest.raises(RuntimeError, match=r'of another architecture; 4 of 4 entries match, .* unexpected are 0\.2\.w'):
        load_weights(shallow, tmp_path / 'a.pth')


def test_a_config_of_an_installed_package():
    pytest.importorskip('mmpretrain')
    model = build_model_from_config('mmpretrain::resnet/resnet18_8xb16_cifar10.py')
    assert type(model).__name__ == 'ImageClassifier'


def test_a_missing_package_is_named_and_never_installed(monkeypatch):
    """mmengine's own look-up would run pip."""
    monkeypatch.setattr('subprocess.check_call', lambda *args, **kwargs: pytest.fail(f'ran {args}'))
    with pytest.raises(ModuleNotFoundError, match=r"expected the package 'mmnone' of 'mmnone::a/b.py'.* not installed"):
        build_model_from_config('mmnone::a/b.py')


def test_a_missing_config_of_an_installed_package():
    pytest.importorskip('mmpretrain')
    with pytest.raises(FileNotFoundError, match=r"expected the config 'mmpretrain::resnet/none' at .*none\.py"):
        build_model_from_config('mmpretrain::resnet/none')
