import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmkd_ext.distill import CachedTeacher, FeatureStore, FrozenTeacher

NUM_SAMPLES = 8
IMAGES = torch.randn(NUM_SAMPLES, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Counts its forwards."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)
        self.num_forwards = 0

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.num_forwards += 1
        return self.head(self.conv(inputs).mean((2, 3)))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'cache'


def cached(folder, taps=('conv', 'head'), teacher='a'):
    store = FeatureStore(folder, NUM_SAMPLES, {'teacher': teacher})
    return CachedTeacher(FrozenTeacher(Net(), taps), store)


def features(teacher, samples, images=IMAGES):
    data_samples = [SimpleNamespace(sample_idx=sample) for sample in samples]
    return teacher.features(inputs=images[list(samples)], data_samples=data_samples, mode='tensor')


def identical(left, right):
    return left.keys() == right.keys() and all(
        left[tap].dtype == right[tap].dtype and torch.equal(left[tap], right[tap]) for tap in left
    )


def test_features_are_the_teachers(folder):
    expected = features(FrozenTeacher(Net(), ['conv', 'head']), [3, 1, 4])
    teacher = cached(folder)
    for num_forwards in (1, 2, 2):  # computed, checked, read
        assert identical(features(teacher, [3, 1, 4]), expected)
        assert teacher.model.num_forwards == num_forwards


def test_one_forward_per_sample_and_one_check_per_dataset(folder):
    teacher = cached(folder)
    for _ in range(4):
        for samples in ([0, 5, 2, 7], [1, 3, 6, 4]):
            features(teacher, samples)
    assert teacher.model.num_forwards == 2 + 3
    reopened = cached(folder)
    for samples in ([7, 6, 5, 4], [3, 2, 1, 0]):
        features(reopened, samples)
    assert reopened.model.num_forwards == 1


def test_sample_has_the_same_bytes_in_every_batch_and_process(folder):
    teacher = cached(folder)
    first = features(teacher, [2, 6])
    for other in (teacher, cached(folder)):
        for samples in ([6, 2], [2, 0, 1, 6, 3, 4, 5, 7], [6]):
            again = features(other, samples)
            for row, sample in ((0, 2), (1, 6)):
                if sample in samples:
                    assert identical(
                        {tap: f[samples.index(sample)] for tap, f in again.items()},
                        {tap: f[row] for tap, f in first.items()},
                    )


def test_sample_that_is_twice_in_a_batch_is_stored_once(folder):
    batch = features(cached(folder), [1, 1, 2])
    assert torch.equal(batch['conv'][0], batch['conv'][1])


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(folder, dtype):
    teacher = cached(folder)
    teacher.model.to(dtype)
    for _ in range(2):
        assert {f.dtype for f in features(teacher, [0, 1], IMAGES.to(dtype)).values()} == {dtype}


def test_autocast_is_part_of_what_is_stored(folder):
    teacher = cached(folder)
    with torch.autocast('cpu', torch.bfloat16):
        assert features(teacher, [0, 1])['head'].dtype == torch.bfloat16
        assert features(teacher, [0, 1])['head'].dtype == torch.bfloat16
    reopened = cached(folder)
    with pytest.raises(ValueError, match='another dtypes of the features'):
        features(reopened, [0, 1])


def test_features_need_no_gradient(folder):
    teacher = cached(folder)
    images = IMAGES.clone().requires_grad_()
    assert not any(f.requires_grad for _ in range(2) for f in features(teacher, [0], images).values())


@pytest.mark.parametrize('scale', [1, 1 + 1e-5])
def test_rounding_passes_the_check(folder, scale):
    for _ in range(2):
        features(cached(folder), range(NUM_SAMPLES), IMAGES * scale)


@pytest.mark.parametrize('later', [0, 1, 5])
def test_random_view_is_found_within_an_epoch(folder, later):
    teacher = cached(folder)
    for _ in range(later + 1):
        features(teacher, range(NUM_SAMPLES))
    with pytest.raises(
        RuntimeError, match=r"features of '(conv|head)' within .* but sample \d differs .* random after"
    ):
        features(teacher, range(NUM_SAMPLES), IMAGES.flip(-1))


def test_changed_image_is_named(folder):
    features(cached(folder), range(NUM_SAMPLES))
    images = IMAGES.clone()
    images[3] += 0.5
    with pytest.raises(RuntimeError, match='sample 3 differs'):
        features(cached(folder), range(NUM_SAMPLES), images)


def test_batches_of_another_size_of_image_are_refused(folder):
    teacher = cached(folder, taps=['head'])
    features(teacher, range(NUM_SAMPLES))
    features(teacher, [0])
    with pytest.raises(RuntimeError, match=r'inputs of shape \(3, 6, 6\) but got \(3, 6, 7\)'):
        features(teacher, [0, 1], torch.zeros(8, 3, 6, 7))


def test_batch_without_indices_is_refused(folder):
    teacher = cached(folder)
    for data_samples in (None, [], [SimpleNamespace()]):
        with pytest.raises(RuntimeError, match="add 'sample_idx' to the meta_keys"):
            teacher.features(IMAGES[:1], data_samples)


@pytest.mark.parametrize('index', [-1, NUM_SAMPLES])
def test_index_beyond_the_dataset_is_refused(folder, index):
    with pytest.raises(RuntimeError, match=rf'sample_idx in \[0, 7\] but got {index} to {index}'):
        cached(folder).features(IMAGES[:1], [SimpleNamespace(sample_idx=index)])


def test_several_views_are_refused(folder):
    with pytest.raises(RuntimeError, match='a tensor as batch but got list'):
        cached(folder).features([IMAGES[:1]] * 2, [SimpleNamespace(sample_idx=0)])


def test_feature_without_a_row_per_sample_is_refused(folder):
    teacher = cached(folder)
    teacher.teacher.features = lambda *args, **kwargs: {'all': torch.zeros(2, 5)}
    with pytest.raises(RuntimeError, match=r"one row per sample at tap 'all', 3, but got shape \(2, 5\)"):
        features(teacher, [0, 1, 2])


def test_feature_may_be_one_number_per_sample(folder):
    teacher = cached(folder)
    teacher.teacher.features = lambda *args, **kwargs: {'energy': torch.arange(3.0)}
    for _ in range(3):
        assert torch.equal(features(teacher, [0, 1, 2])['energy'], torch.arange(3.0))


def test_it_stands_in_for_the_teacher(folder):
    teacher = cached(folder)
    assert teacher.taps == ('conv', 'head')
    assert teacher.adapt is None
    assert copy.deepcopy(teacher) is teacher
    assert teacher.to(torch.device('cpu')) is teacher
    assert not teacher.model.training
