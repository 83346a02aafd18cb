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
        ({'torchvision': 'resnet18', 'checkpoint': None}, r'expected mean= and std= .* ImageNet'),
    ],
)
def test_bad_keys(spec, message):
    with pytest.raises(TypeError, match=message):
        check_teacher_spec(spec)


def test_explicit_none_for_the_students_normalization():
    check_teacher_spec({'torchvision': 'resnet18', 'checkpoint': None, 'mean': None, 'std': None})
