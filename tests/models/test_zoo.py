import subprocess
import sys

import pytest
import torch

from mmkd_ext.models.zoo import build_zoo_model, weights_command, zoo_normalization


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


def test_timm_by_name_and_tag():
    """A tag names weights; it takes no part in the architecture. Nothing is downloaded."""
    timm = pytest.importorskip('timm')
    plain, tagged = build_zoo_model('timm', 'test_vit'), build_zoo_model('timm', 'test_vit.r160_in1k')
    assert plain.state_dict().keys() == tagged.state_dict().keys() == timm.create_model('test_vit').state_dict().keys()
    assert build_zoo_model('timm', {'name': 'test_vit.r160_in1k', 'num_classes': 3}).head.out_features == 3


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('test_vits', r"a model of timm but got 'test_vits'; did you mean .*'test_vit'"),
        ('resnet50.a1_in1', r"got 'resnet50\.a1_in1'; did you mean .*'resnet50\.a1_in1k'"),
        ('resnetfifty.a1_in1k', r"got 'resnetfifty'"),
        ('hf_hub:timm/resnet50', r"got 'hf_hub:timm/resnet50'"),  # would be downloaded
    ],
)
def test_names_that_timm_does_not_know(name, message):
    pytest.importorskip('timm')
    with pytest.raises(KeyError, match=message):
        build_zoo_model('timm', name)


# Published facts: of the papers and model cards, for pixels in [0, 1].
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
CAFFE = (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.mark.parametrize(
    ('zoo', 'model', 'expected'),
    [
        ('timm', 'vit_small_patch16_224', HALF),
        ('timm', 'vit_small_patch16_224.dino', IMAGENET),
        ('timm', 'resnet50.a1_in1k', IMAGENET),
        ('timm', {'name': 'tf_efficientnet_lite0', 'num_classes': 3}, HALF),
        ('timm', 'vit_base_patch16_clip_224.openai', CLIP),
        ('torchvision', 'resnet18', IMAGENET),
        ('torchvision', 'efficientnet_v2_l', HALF),
        ('torchvision', {'name': 'vgg16', 'weights': 'IMAGENET1K_V1'}, IMAGENET),
        ('torchvision', {'name': 'vgg16', 'weights': 'IMAGENET1K_FEATURES'}, CAFFE),
        ('torchvision', 'deeplabv3_resnet50', IMAGENET),
        ('torchvision', 'fasterrcnn_resnet50_fpn', ((0.0,), (1.0,))),  # normalizes by itself
    ],
)  # fmt: skip
def test_the_collection_says_what_its_weights_were_trained_on(zoo, model, expected):
    pytest.importorskip(zoo)
    mean, std = expected
    normalization = zoo_normalization(zoo, model)
    assert normalization.mean == pytest.approx([255 * value for value in mean])
    assert normalization.std == pytest.approx([255 * value for value in std], rel=1e-5)
    assert not normalization.flips_channels


def test_what_the_collection_does_not_say():
    pytest.importorskip('timm')
    assert zoo_normalization('timm', {'name': 'resnet18', 'in_chans': 1}) is None
    assert zoo_normalization('torchvision', 'raft_small') is None
    with pytest.raises(KeyError, match=r"expected weights of torchvision \(vgg16\) but got 'IMAGENET'"):
        zoo_normalization('torchvision', {'name': 'vgg16', 'weights': 'IMAGENET'})


@pytest.mark.parametrize('name', ['googlenet', 'inception_v3'])
def test_models_that_transform_their_inputs_where_torchvision_loads_the_weights(name, monkeypatch):
    """Ours is the model that torchvision would make; its own has only no weights to download here."""
    torchvision = pytest.importorskip('torchvision')
    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', lambda *args, **kwargs: {})
    monkeypatch.setattr(torchvision.models._api.WeightsEnum, 'get_state_dict', lambda self, **kwargs: {})
    monkeypatch.setattr(torch.nn.Module, 'load_state_dict', lambda self, *args, **kwargs: None)
    theirs = torchvision.models.get_model(name, weights='DEFAULT').eval()
    monkeypatch.undo()
    ours = build_zoo_model('torchvision', name).eval()
    ours.load_state_dict(theirs.state_dict())  # the same entries
    x = torch.rand(1, 3, 80, 80)
    torch.testing.assert_close(ours(x), theirs(x))
    assert not build_zoo_model('torchvision', {'name': name, 'transform_input': False}).transform_input


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
    tagged = weights_command('torchvision', {'name': 'vgg16', 'weights': 'IMAGENET1K_FEATURES'}, 'a.pth')
    assert "get_model('vgg16', weights='IMAGENET1K_FEATURES')" in tagged


def test_the_command_runs(tmp_path):
    command = weights_command('torchvision', 'squeezenet1_1', str(tmp_path / 'a.pth'))
    offline = command.replace("weights='DEFAULT'", 'weights=None').replace('python', sys.executable, 1)
    subprocess.run(offline, shell=True, check=True)
    model = build_zoo_model('torchvision', 'squeezenet1_1')
    model.load_state_dict(torch.load(tmp_path / 'a.pth', weights_only=True))
