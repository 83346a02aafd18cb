import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmkd_ext.models.teacher import build_zoo_model, weights_command


def test_torchvision_by_name():
    model = build_zoo_model('torchvision', 'resnet18')
    assert type(model).__name__ == 'ResNet'
    assert model.fc.out_features == 1000


def test_torchvision_with_arguments():
    assert build_zoo_model('torchvision', {'name': 'resnet18', 'num_classes': 7}).fc.out_features == 7


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('download')

    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', refuse)
    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    build_zoo_model('torchvision', 'lraspp_mobilenet_v3_large')  # its backbone has weights by default


def test_unknown_name():
    with pytest.raises(KeyError, match=r"torchvision .*got 'resnet19'.*'resnet18'"):
        build_zoo_model('torchvision', 'resnet19')


def test_timm_is_imported_on_use(monkeypatch):
    asked = []

    def create_model(name, pretrained, **arguments):
        asked.append((name, pretrained, arguments))
        return nn.Linear(1, 1)

    timm = SimpleNamespace(list_models=lambda: ['vit_tiny'], create_model=create_model)
    monkeypatch.setitem(sys.modules, 'timm', timm)
    assert isinstance(build_zoo_model('timm', {'name': 'vit_tiny', 'num_classes': 0}), nn.Linear)
    assert asked == [('vit_tiny', False, {'num_classes': 0})]
    with pytest.raises(KeyError, match=r"got 'vit_tini'.*'vit_tiny'"):
        build_zoo_model('timm', 'vit_tini')


def test_timm_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ModuleNotFoundError, match=r'timm .*pip install timm'):
        build_zoo_model('timm', 'vit_tiny')


def test_command_that_makes_the_weights():
    assert weights_command('timm', 'vit_tiny', 'a.pth') == (
        'python -c "import torch, timm; '
        "torch.save(timm.create_model('vit_tiny', pretrained=True).state_dict(), 'a.pth')\""
    )
    assert weights_command('torchvision', {'name': 'resnet18', 'num_classes': 7}, 'a.pth') is None


def test_the_command_runs(tmp_path):
    command = weights_command('torchvision', 'squeezenet1_1', str(tmp_path / 'a.pth'))
    offline = command.replace("weights='DEFAULT'", 'weights=None').replace('python', sys.executable, 1)
    subprocess.run(offline, shell=True, check=True)
    model = build_zoo_model('torchvision', 'squeezenet1_1')
    model.load_state_dict(torch.load(tmp_path / 'a.pth', weights_only=True))
