import pytest
import torch
from mmengine.model import BaseDataPreprocessor, BaseModel, ImgDataPreprocessor
from torch import nn

from mmkd_ext.models import MultiViewDataPreprocessor
from mmkd_ext.models.teacher import build_teacher, check_teacher_spec


class Net(BaseModel):
    """A small convolutional network in the form of OpenMMLab."""

    def __init__(self, width=4, in_channels=3, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.stem = nn.Conv2d(in_channels, width, 3)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.stem(inputs)


def mmengine_style(mean, std, flips=False):
    return ImgDataPreprocessor(mean, std, bgr_to_rgb=flips)


def mmpretrain_style(mean, std, flips=False):
    return MultiViewDataPreprocessor(mean, std, to_rgb=flips)


A, B = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]), ([7.0, 8.0, 9.0], [2.0, 3.0, 4.0])


def net(preprocessor=None, **options):
    return {'type': Net, 'data_preprocessor': preprocessor, **options}


def pixels():
    return torch.randint(0, 256, (2, 3, 6, 6)).float()


def feature(spec, student, x):
    """What the teacher makes of pixels that the student has preprocessed."""
    teacher = build_teacher({'checkpoint': None, **spec}, ['stem'], student).frozen
    batch = student.data_preprocessor({'inputs': x.clone()})['inputs']
    return teacher.features(batch)['stem'], teacher.model


@pytest.mark.parametrize('student_style', [mmengine_style, mmpretrain_style])
@pytest.mark.parametrize('teacher_style', [mmengine_style, mmpretrain_style])
@pytest.mark.parametrize('flips', [(False, False), (True, False), (False, True), (True, True)])
def test_the_teacher_sees_pixels_through_its_own_preprocessor(student_style, teacher_style, flips):
    student = Net(data_preprocessor=student_style(*A, flips[0]))
    own = teacher_style(*B, flips[1])
    x = pixels()
    actual, model = feature({'model': net(own)}, student, x)
    expected = model.stem(own({'inputs': x.clone()})['inputs'])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('own', [None, BaseDataPreprocessor()])
def test_a_teacher_without_normalization_takes_the_batch_as_it_is(own):
    student = Net(data_preprocessor=mmengine_style(*A, True))
    x = pixels()
    actual, model = feature({'model': net(own)}, student, x)
    torch.testing.assert_close(actual, model.stem(student.data_preprocessor({'inputs': x})['inputs']))


def test_a_student_without_normalization():
    x = pixels()
    actual, model = feature({'model': net(mmengine_style(*B))}, Net(), x)
    torch.testing.assert_close(actual, model.stem(mmengine_style(*B)({'inputs': x})['inputs']), rtol=1e-4, atol=1e-3)


def test_explicit_mean_and_std_and_channels():
    student, x = Net(data_preprocessor=mmengine_style(*A)), pixels()
    spec = {'model': net(), 'mean': B[0], 'std': B[1], 'flip_channels': True}
    actual, model = feature(spec, student, x)
    expected = model.stem(mmengine_style(*B, flips=True)({'inputs': x.clone()})['inputs'])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('size', [9, (9, 9)])
def test_own_input_size(size):
    actual, _ = feature({'model': net(), 'input_size': size}, Net(), pixels())
    assert actual.shape == (2, 4, 7, 7)


def test_a_plain_model():
    class Student(Net):
        pass

    student = Student(data_preprocessor=mmengine_style(*A))
    spec = {'torchvision': 'squeezenet1_1', 'checkpoint': None, 'mean': B[0], 'std': B[1]}
    teacher = build_teacher(spec, ['classifier'], student)
    assert teacher.source == 'torchvision squeezenet1_1'
    x = torch.rand(1, 3, 64, 64)
    features = teacher.frozen.features(inputs=x, data_samples=[None], mode='tensor')
    assert features['classifier'].shape[1] == 1000


@pytest.mark.parametrize(
    ('suffix', 'save'), [('pth', lambda weights, path: torch.save({'model': weights}, path)), ('safetensors', None)]
)
def test_weights_and_report(tmp_path, suffix, save):
    if save is None:
        save = pytest.importorskip('safetensors.torch').save_file
    weights = {**Net(width=6).state_dict(), 'head.weight': torch.ones(1)}
    path = tmp_path / f'a.{suffix}'
    save(weights, path)
    teacher = build_teacher({'model': net(width=6), 'checkpoint': str(path)}, ['stem'], Net())
    assert torch.equal(teacher.frozen.model.stem.weight, weights['stem.weight'])
    assert teacher.loaded == f'2 of 2 from {path} (not used: head.weight)'
    assert (teacher.source, teacher.num_parameters) == ('Net', 6 * 28)


def test_building_a_teacher_draws_no_random_numbers_of_the_training():
    student = Net()
    state = torch.get_rng_state()
    build_teacher({'model': net(), 'checkpoint': None}, ['stem'], student)
    assert torch.equal(torch.get_rng_state(), state)


def test_another_number_of_channels():
    student = Net(data_preprocessor=mmengine_style(*A))
    spec = {'model': net(), 'checkpoint': None, 'mean': (1.0, 2.0), 'std': (1.0, 2.0)}
    with pytest.raises(ValueError, match=r"teacher 'x': .*channels"):
        build_teacher(spec, ['stem'], student, "teacher 'x'")


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ({'config': 'c.py', 'checkpoint': 'w/a.pth'}, '`mmkd train c.py --work-dir w`, or add --with-teac'),
        (
            {'config': 'mmpretrain::a.py', 'checkpoint': 'w/a.pth'},
            '; download the weights that the project publishes for mm',
        ),
        ({'model': {}, 'checkpoint': 'w/a.pth'}, '$'),
        ({'torchvision': 'resnet18', 'checkpoint': 'w/a.pth'}, r'get the published weights with `python -c .*resnet18'),
        ({'torchvision': {'name': 'resnet18', 'num_classes': 2}, 'checkpoint': 'w/a.pth'}, '$'),
        ({'timm': 'vit_tiny', 'checkpoint': 'w/a.pth'}, r'`python -c "import torch, timm; .*vit_tiny'),
    ],
)
def test_missing_checkpoint_prints_the_command_that_makes_it(spec, message):
    missing = r'teacher: expected a checkpoint at w/a\.pth but found no file'
    with pytest.raises(FileNotFoundError, match=rf'{missing}.*{message}'):
        build_teacher(spec, ['stem'], Net())


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ({}, r'got the keys \[\]'),
        ({'config': 'a.py'}, 'expected dict'),
        ({'checkpoint': None}, 'expected dict'),
        ({'config': 'a.py', 'timm': 'b', 'checkpoint': None}, 'expected dict'),
        ({'config': 'a.py', 'checkpoint': None, 'size': 3}, r"'size'"),
        ({'config': 'a.py', 'checkpoint': None, 'mean': (0.0,)}, 'expected mean= and std='),
        ({'torchvision': 'resnet18', 'checkpoint': None, 'mean': None, 'std': (1.0,)}, r'mean= and std= .*both or nei'),
    ],
)
def test_bad_keys(spec, message):
    with pytest.raises(TypeError, match=message):
        check_teacher_spec(spec)


@pytest.mark.parametrize('flips', [False, True])
def test_explicit_none_for_the_inputs_of_the_student_as_they_are(flips):
    """Whatever the preprocessor of the teacher says."""
    student, x = Net(data_preprocessor=mmengine_style(*A, flips)), pixels()
    spec = {'model': net(mmengine_style(*B, not flips)), 'mean': None, 'std': None}
    actual, model = feature(spec, student, x)
    torch.testing.assert_close(actual, model.stem(student.data_preprocessor({'inputs': x})['inputs']))


IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
HALF = (127.5,) * 3, (127.5,) * 3


@pytest.mark.parametrize('flips', [False, True])
@pytest.mark.parametrize(
    ('spec', 'tap', 'size', 'statistics'),
    [
        ({'torchvision': 'squeezenet1_1'}, 'features.0:in', 32, IMAGENET),
        ({'timm': 'test_vit'}, 'patch_embed:in', 160, HALF),
        ({'timm': 'test_resnet.r160_in1k'}, 'conv1.0:in', 32, HALF),
        ({'timm': 'resnet18.a1_in1k'}, 'conv1:in', 32, IMAGENET),
    ],
)
def test_what_a_model_zoo_says_of_inputs_is_heeded(spec, tap, size, statistics, flips):
    """The order of channels stays that of the student, whose pixels the pipeline may have in either."""
    pytest.importorskip(next(iter(spec)))
    student, x = Net(data_preprocessor=mmengine_style(*A, flips)), torch.randint(0, 256, (2, 3, size, size)).float()
    built = build_teacher({**spec, 'checkpoint': None}, [tap], student).frozen
    actual = built.features(student.data_preprocessor({'inputs': x.clone()})['inputs'])[tap]
    expected = mmengine_style(*statistics, flips)({'inputs': x.clone()})['inputs']
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


def test_a_model_zoo_that_says_nothing():
    spec = {'torchvision': 'raft_small', 'checkpoint': None}
    with pytest.raises(ValueError, match=r'teacher: expected mean= and std= .* ImageNet these are mean=\(123\.675'):
        build_teacher(spec, ['feature_encoder'], Net())


def test_an_image_of_a_size_that_the_teacher_refuses():
    pytest.importorskip('timm')
    dino, x = {'name': 'vit_small_patch14_dinov2', 'depth': 1}, torch.randint(0, 256, (1, 3, 56, 56)).float()
    teacher = build_teacher({'timm': dino, 'checkpoint': None}, ['blocks'], Net()).frozen
    with pytest.raises(ValueError, match=r'teacher: expected images .*\(1, 3, 56, 56\).*518.*input_size=.*img_size='):
        teacher.features(x)
    smaller = build_teacher({'timm': {**dino, 'img_size': 56}, 'checkpoint': None}, ['blocks'], Net()).frozen
    assert smaller.features(x)['blocks'].shape[1] == 1 + 4 * 4


# Normalization in data pipelines


class Images(list):
    """A data set with a pipeline."""

    def __init__(self, *pipeline):
        super().__init__()
        self.pipeline = pipeline


NORMALIZE = {'type': 'Normalize', 'mean': A[0], 'std': A[1], 'to_rgb': True}


def test_a_student_that_is_normalized_in_its_pipeline():
    x, own = pixels(), mmpretrain_style(*B, True)
    batch = mmengine_style(*A, True)({'inputs': x.clone()})['inputs']
    spec = {'model': net(own), 'checkpoint': None}
    teacher = build_teacher(spec, ['stem'], Net(), dataset=Images(NORMALIZE)).frozen
    expected = teacher.model.stem(own({'inputs': x.clone()})['inputs'])
    torch.testing.assert_close(teacher.features(batch)['stem'], expected, rtol=1e-4, atol=1e-3)


def test_a_teacher_that_was_normalized_in_its_pipeline(tmp_path):
    """Its config tells; its preprocessor does not."""
    pytest.importorskip('mmpretrain')
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'Normalize', 'mean': B[0], 'std': B[1], 'to_rgb': False}]
    (tmp_path / 'teacher.py').write_text(
        "default_scope = 'mmpretrain'\n"
        "model = dict(type='ImageClassifier', backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=4))\n"
        f'train_dataloader = dict(dataset=dict(type="CustomDataset", pipeline={pipeline}))\n'
    )
    student, x = Net(data_preprocessor=mmengine_style(*A)), pixels()
    spec = {'config': str(tmp_path / 'teacher.py'), 'checkpoint': None}
    teacher = build_teacher(spec, ['backbone.conv1'], student).frozen
    actual = teacher.features(student.data_preprocessor({'inputs': x.clone()})['inputs'])['backbone.conv1']
    expected = teacher.model.backbone.conv1(mmengine_style(*B)({'inputs': x.clone()})['inputs'])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def test_a_normalization_that_cannot_be_known_is_refused_where_it_matters():
    images = Images({'type': 'PerImageNormalization'})
    with pytest.raises(ValueError, match=r'teacher: .*PerImageNormalization.*data_preprocessor, or .*mean=None'):
        build_teacher({'model': net(mmengine_style(*B)), 'checkpoint': None}, ['stem'], Net(), dataset=images)
    build_teacher({'model': net(), 'checkpoint': None}, ['stem'], Net(), dataset=images)
    spec = {'model': net(mmengine_style(*B)), 'checkpoint': None, 'mean': None, 'std': None}
    build_teacher(spec, ['stem'], Net(), dataset=images)


@pytest.mark.parametrize('batch', [torch.randn(2, 3, 6, 6), torch.rand(2, 3, 6, 6)])
def test_values_that_cannot_be_those_of_pixels_are_refused(batch):
    """Somebody has normalized them without a word; the teacher's own would come on top."""
    spec = {'model': net(mmengine_style(*IMAGENET)), 'checkpoint': None}
    with pytest.raises(ValueError, match=r'teacher: expected pixels of 0 to 255.* but got values from .*mean=None'):
        build_teacher(spec, ['stem'], Net()).frozen.features(batch)
    build_teacher({**spec, 'mean': None, 'std': None}, ['stem'], Net()).frozen.features(batch)
    for image in (torch.zeros(2, 3, 6, 6), torch.ones(2, 3, 6, 6), pixels()):  # black, a mask, any
        build_teacher(spec, ['stem'], Net()).frozen.features(image)


# Weights


@pytest.mark.parametrize('name', ['ResNet', 'MobileNetV2'])
def test_a_bare_backbone_of_mmpretrain(name, tmp_path):
    """Their train() and eval() return nothing. The weights are those of a classifier around it."""
    models = pytest.importorskip('mmpretrain.models')
    arguments = {'depth': 18, 'base_channels': 4} if name == 'ResNet' else {}
    source = getattr(models, name)(**arguments)
    weights = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    torch.save({'state_dict': {**weights, 'head.fc.weight': torch.ones(1)}}, tmp_path / 'a.pth')
    tap = next(name for name, module in source.named_modules() if isinstance(module, nn.Conv2d))
    spec = {'model': {'type': f'mmpretrain.{name}', **arguments}, 'checkpoint': str(tmp_path / 'a.pth')}
    teacher = build_teacher({**spec, 'prefix': 'backbone.'}, [f'{tap}:in'], Net())
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(teacher.frozen.features(x)[f'{tap}:in'], x)
    assert not teacher.frozen.model.training
    for key, value in teacher.frozen.model.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key
    with pytest.raises(RuntimeError, match=r"all \d+ entries match under the prefix 'state_dict\.backbone\.'"):
        build_teacher(spec, [tap], Net())


def test_classes_of_a_teacher(tmp_path):
    meta = {'dataset_meta': {'classes': ['b', 'a']}}
    torch.save({'state_dict': Net().state_dict(), 'meta': meta}, tmp_path / 'a.pth')
    spec = {'model': net(), 'checkpoint': str(tmp_path / 'a.pth')}
    assert build_teacher(spec, ['stem'], Net()).classes == ('b', 'a')
    assert build_teacher({**spec, 'classes': [1, 2]}, ['stem'], Net()).classes == ('1', '2')
    assert build_teacher({**spec, 'classes': None}, ['stem'], Net()).classes is None
    assert build_teacher({**spec, 'checkpoint': None}, ['stem'], Net()).classes is None
