from types import SimpleNamespace

import pytest
import torch

from mmkd_ext.distill import InputAdapter, Normalization
from mmkd_ext.distill.features import call_of
from mmkd_ext.distill.inputs import normalization_of

MINE = Normalization((125.0, 123.0, 114.0), (63.0, 62.0, 67.0))
IMAGENET = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def pixels(*shape):
    return torch.randint(0, 256, shape).float()


def normalized(x, how):
    """Each model's own preprocessing, channel by channel."""
    if how.flips_channels:
        x = x[:, [2, 1, 0]]
    return torch.stack([(x[:, c] - how.mean[c]) / how.std[c] for c in range(3)], 1)


@pytest.mark.parametrize('student_flips', [False, True])
@pytest.mark.parametrize('teacher_flips', [False, True])
def test_the_teacher_gets_what_its_own_preprocessing_gives(student_flips, teacher_flips):
    student = Normalization(MINE.mean, MINE.std, student_flips)
    teacher = Normalization(IMAGENET.mean, IMAGENET.std, teacher_flips)
    x = pixels(2, 3, 5, 4)
    adapted = InputAdapter(student, teacher)(normalized(x, student))
    torch.testing.assert_close(adapted, normalized(x, teacher), rtol=1e-5, atol=1e-5)


def test_equal_statistics_in_other_order_of_channels():
    teacher = Normalization(MINE.mean, MINE.std, flips_channels=True)
    x = pixels(1, 3, 2, 2)
    adapted = InputAdapter(MINE, teacher)(normalized(x, MINE))
    torch.testing.assert_close(adapted, normalized(x, teacher), rtol=1e-5, atol=1e-5)


def test_a_student_without_normalization():
    x = pixels(2, 3, 4, 4)
    torch.testing.assert_close(InputAdapter(Normalization(), IMAGENET)(x), normalized(x, IMAGENET))


@pytest.mark.parametrize('teacher', [None, MINE])
def test_nothing_to_do(teacher):
    x = torch.randn(2, 3, 4, 4)
    adapter = InputAdapter(MINE, teacher)
    assert adapter(x) is x
    assert str(adapter) == "the student's"


def test_each_view_is_adapted():
    views = [torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)]
    adapter = InputAdapter(MINE, IMAGENET)
    for view, adapted in zip(views, adapter(views), strict=True):
        torch.testing.assert_close(adapted, adapter(view))


def test_resizing():
    x = torch.randn(2, 3, 4, 4)
    adapted = InputAdapter(MINE, MINE, (2, 2))(x)
    assert adapted.shape == (2, 3, 2, 2)
    flat = torch.full((1, 3, 4, 6), 0.7)
    torch.testing.assert_close(InputAdapter(MINE, MINE, (9, 5))(flat), torch.full((1, 3, 9, 5), 0.7))
    ramp = torch.arange(4.0).expand(1, 3, 4, 4).clone()
    assert InputAdapter(MINE, MINE, (8, 8))(ramp)[0, 0, 0, 1:-1].diff().tolist() == pytest.approx([0.5] * 5)


def test_half_precision_is_computed_in_float32():
    x = torch.randn(2, 3, 4, 4).half()
    adapted = InputAdapter(MINE, IMAGENET)(x)
    assert adapted.dtype == torch.float16
    torch.testing.assert_close(adapted, InputAdapter(MINE, IMAGENET)(x.float()).half(), rtol=0, atol=0)


def test_description():
    teacher = Normalization(IMAGENET.mean, IMAGENET.std, flips_channels=True)
    expected = 'own normalization, channels reversed, resized to (8, 8)'
    assert str(InputAdapter(MINE, teacher, (8, 8))) == expected


def test_moves_to_a_device():
    assert InputAdapter(MINE, IMAGENET).to('meta')(torch.ones(1, 3, 2, 2, device='meta')).device.type == 'meta'


@pytest.mark.parametrize(
    ('teacher', 'size', 'message'),
    [
        (Normalization((1.0, 2.0), (1.0, 1.0)), None, 'big: expected the number of channels of the student'),
        (Normalization((1.0,), (0.0,)), None, 'big: expected std and size > 0'),
        (None, (0, 4), 'big: expected std and size > 0'),
    ],
)
def test_refuses(teacher, size, message):
    with pytest.raises(ValueError, match=message):
        InputAdapter(MINE, teacher, size, caller='big')


def test_a_grey_image_does_not_become_a_colour_image_by_itself():
    adapter = InputAdapter(Normalization((100.0,), (50.0,)), IMAGENET)
    with pytest.raises(ValueError, match=r'teacher: expected inputs of 3 channels but .* \(2, 1, 4, 4\)'):
        adapter(torch.randn(2, 1, 4, 4))


@pytest.mark.parametrize('inputs', [torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.randn(2, 3), {'a': 1}])
def test_inputs_that_are_no_images(inputs):
    with pytest.raises(TypeError, match=r'teacher: expected float images \(N, C, H, W\), or a list of them'):
        InputAdapter(MINE, IMAGENET)(inputs)


@pytest.mark.parametrize('switch', ['to_rgb', '_channel_conversion', 'channel_conversion'])
def test_the_normalization_is_read_from_every_kind_of_preprocessor(switch):
    statistics = {'mean': torch.tensor(IMAGENET.mean).view(3, 1, 1), 'std': torch.tensor(IMAGENET.std).view(3, 1, 1)}
    read = normalization_of(SimpleNamespace(**statistics, **{switch: True}))
    assert read.flips_channels
    assert read.mean == pytest.approx(IMAGENET.mean)
    assert normalization_of(SimpleNamespace(mean=None, **{switch: True})) == Normalization(flips_channels=True)
    assert normalization_of(SimpleNamespace(**{switch: False})) is None


@pytest.mark.parametrize('batch', [{'inputs': 1, 'data_samples': 2, 'mode': 'tensor'}, (1, 2), (1, 2, 'tensor')])
def test_a_batch_is_a_call_whatever_the_preprocessor_returns(batch):
    assert call_of(batch, mode='loss') == {'inputs': 1, 'data_samples': 2, 'mode': 'loss'}
