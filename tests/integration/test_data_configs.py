"""The shipped data configs, built as they are over small folders in the official layouts."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageOps
from scipy import stats

from mmkd_ext.datasets import CIFAR10, CIFAR100
from mmkd_ext.registry import DATASETS
from official_layouts import RNG, WRITERS

pytestmark = pytest.mark.usefixtures('host_scope')

CONFIGS = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets'


def load(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Return a function that writes what a config asks for under its own relative path."""
    monkeypatch.setattr(CIFAR10, 'images_per_file', {'train': 10, 'test': 10})
    monkeypatch.setattr(CIFAR100, 'images_per_file', {'train': 100, 'test': 100})
    monkeypatch.chdir(tmp_path)

    def write(config):
        root = config.get('data', {}).get('data_root')
        if root:
            WRITERS[Path(root).name](tmp_path / root)

    return write


LARGE, SMALL, VIT, DIGIT = (3, 32, 32), (3, 18, 18), (3, 224, 224), (1, 8, 8)
# config, number of known classes, number of classes, view shapes, evaluation shape
CASES = [
    ('digits', 5, 10, [DIGIT] * 2, DIGIT),
    ('digits_0-4', 5, 10, [DIGIT] * 2, DIGIT),
    ('cifar100_50', 50, 100, [LARGE] * 2 + [SMALL] * 2, LARGE),
    ('cifar100_20', 80, 100, [LARGE] * 2 + [SMALL] * 2, LARGE),
    ('cifar10', 5, 10, [LARGE] * 2 + [SMALL] * 2, LARGE),
    ('cub', 100, 200, [VIT] * 2, VIT),
    ('cars', 98, 196, [VIT] * 2, VIT),
    ('aircraft', 50, 100, [VIT] * 2, VIT),
]


@pytest.mark.parametrize(('name', 'num_known', 'num_classes', 'views', 'evaluation'), CASES)
def test_discovery_data(data, name, num_known, num_classes, views, evaluation):
    config = load(f'ncd_{name}')
    data(config)
    train = DATASETS.build(config.train_dataloader.dataset)
    assert len(train.classes) == num_classes
    assert train.metainfo['num_known'] == num_known == config.val_evaluator.num_known
    assert config.val_evaluator.type == 'mmkd_ext.NovelClassMetric'
    batch = default_collate([train[index] for index in range(4)])
    assert [tuple(view.shape[1:]) for view in batch['inputs']] == views
    assert all(view.dtype == torch.uint8 for view in batch['inputs'])
    labels = train.get_gt_labels()
    assert labels.max() < num_known
    assert (labels == -1).any()

    both = DATASETS.build(config.val_dataloader.dataset)
    assert both.metainfo == train.metainfo
    unlabelled, test = both.datasets
    assert (unlabelled.name, test.name) == ('unlabelled_train', 'test')
    assert len(unlabelled) == (labels == -1).sum()
    assert unlabelled.get_gt_labels().min() >= num_known
    assert set(np.unique(test.get_gt_labels() < num_known)) == {True, False}
    assert tuple(both[0]['inputs'].shape) == evaluation
    assert config.test_dataloader == config.val_dataloader
    assert config.test_evaluator == config.val_evaluator


@pytest.mark.parametrize(('name', 'num_known', 'num_classes', 'views', 'evaluation'), CASES)
def test_supervised_data(data, name, num_known, num_classes, views, evaluation):
    config = load(f'supervised_{name}')
    data(config)
    train = DATASETS.build(config.train_dataloader.dataset)
    test = DATASETS.build(config.val_dataloader.dataset)
    for split in (train, test):
        assert split.labelled.all()
        assert split.metainfo['num_known'] == num_known
        assert 0 <= split.get_gt_labels().min() <= split.get_gt_labels().max() < num_known
    assert [tuple(view.shape) for view in train[0]['inputs']] == views[:2]
    assert test.name == 'test'
    assert config.val_evaluator == config.test_evaluator == {'type': 'Accuracy'}


@pytest.mark.parametrize(('name', 'known'), [('digits', '56789'), ('digits_0-4', '01234')])
def test_known_digits(name, known):
    config = load(f'ncd_{name}')
    for dataset in [config.train_dataloader.dataset, *config.val_dataloader.dataset.datasets]:
        assert ''.join(DATASETS.build(dataset).classes[:5]) == known


def test_generalised_data_of_cifar100(data, tmp_path, monkeypatch):
    """Of ten classes, half of the images of the first five are labelled; SPLIT_SEED says which, in both stages."""
    data(load('ncd_cifar100_50'))
    monkeypatch.setattr(CIFAR100, 'images_per_file', {'train': 800, 'test': 100})
    file = tmp_path / 'data/cifar100/train.bin'
    rows = np.frombuffer(file.read_bytes() * 8, dtype=np.uint8).reshape(800, 3074).copy()
    rows[:, 2:] = RNG.integers(0, 256, (800, 3072), dtype=np.uint8)
    rows.tofile(file)

    def build(name, seed):
        monkeypatch.setenv('SPLIT_SEED', str(seed))
        return DATASETS.build(load(name).train_dataloader.dataset)

    train = build('gcd_cifar100_10x500', seed=3)
    assert ' '.join(train.classes) == 'apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle'
    labels = train.get_gt_labels()
    np.testing.assert_array_equal(np.bincount(labels + 1), [60, 4, 4, 4, 4, 4])
    assert tuple(train.images.shape) == (80, 3, 16, 16)

    stage_one = build('supervised_gcd_cifar100_10x500', seed=3)
    assert torch.equal(stage_one.images, train.images[labels >= 0])
    assert not np.array_equal(build('gcd_cifar100_10x500', seed=4).get_gt_labels(), labels)

    monkeypatch.setenv('SPLIT_SEED', '3')
    unlabelled, test = DATASETS.build(load('gcd_cifar100_10x500').val_dataloader.dataset).datasets
    np.testing.assert_array_equal(np.bincount(unlabelled.get_gt_labels()), [4] * 5 + [8] * 5)
    np.testing.assert_array_equal(test.get_gt_labels(), np.arange(10))
    test = DATASETS.build(load('supervised_gcd_cifar100_10x500').val_dataloader.dataset)
    np.testing.assert_array_equal(test.get_gt_labels(), np.arange(5))


def test_channels_stay_red_green_blue(data, tmp_path):
    config = load('ncd_cub')
    data(config)
    red = Image.new('RGB', (300, 280), (250, 10, 90))
    for path in (tmp_path / config.data.data_root / 'images').rglob('*.jpg'):
        red.save(path, quality=100)
    for dataset in (config.train_dataloader.dataset, config.val_dataloader.dataset.datasets[1]):
        inputs = DATASETS.build(dataset)[0]['inputs']
        for view in inputs if isinstance(inputs, list) else [inputs]:
            assert (view.float().mean((1, 2)) - torch.tensor([250.0, 10.0, 90.0])).abs().max() < 3


# --- augmentations: mmpretrain's bridge and transforms against PIL and the official parameters


def official_parameters(view):
    return [step for step in load('ncd_cifar100_50')[view] if step['type'] not in ('NumpyToPIL', 'PILToNumpy')]


@pytest.mark.parametrize(('view', 'jitter', 'other'), [('large_view', 0.6, 0.1), ('small_view', 0.8, 0.2)])
def test_official_parameters_of_cifar_views(view, jitter, other):
    """The values of UNO and Cr-KD, read from the objects that are built."""
    crop, flip, colour, solarize, equalize = map(TRANSFORMS.build, official_parameters(view))
    if view == 'large_view':
        padded, resized = (option.transforms[0].t for option in crop.transforms)
        assert (padded.size, padded.padding) == ((32, 32), 4)
        assert (resized.size, tuple(resized.scale)) == ((32, 32), (0.5, 1.0))
        assert crop.prob is None  # uniform
    else:
        assert (crop.t.size, tuple(crop.t.scale)) == ((18, 18), (0.3, 0.8))
    assert flip.t.p == 0.5
    assert colour.prob == jitter
    change = colour.transforms.transforms[0].t
    ranges = [change.brightness, change.contrast, change.saturation, change.hue]
    np.testing.assert_allclose(ranges, [(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)])
    assert solarize.prob == equalize.prob == other


def test_solarize_draws_its_threshold_uniformly_and_equals_pil():
    config = dict(official_parameters('large_view')[3], prob=1.0)
    solarize = TRANSFORMS.build(config)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    thresholds = []
    for _ in range(600):
        image = solarize({'img': ramp.copy()})['img']
        threshold = int((image[:, 0, 0] == ramp[:, 0, 0]).sum())  # values below are unchanged
        np.testing.assert_array_equal(image, np.asarray(ImageOps.solarize(Image.fromarray(ramp), threshold)))
        thresholds.append(threshold)
    assert stats.kstest(thresholds, stats.uniform(0, 256).cdf).pvalue > 1e-3


def test_solarize_is_applied_with_its_probability():
    solarize = TRANSFORMS.build(official_parameters('small_view')[3])
    white = np.full((1, 1, 3), 255, dtype=np.uint8)
    changed = sum(int(solarize({'img': white.copy()})['img'].max() == 0) for _ in range(2000))
    assert stats.binomtest(changed, 2000, 0.2).pvalue > 1e-3


def test_equalize_equals_pil():
    equalize = TRANSFORMS.build({'type': 'Equalize', 'prob': 1.0})
    for number in range(30):
        image = (RNG.random((18, 18, 3)) ** (1 + number % 3) * 220).astype(np.uint8)
        expected = np.asarray(ImageOps.equalize(Image.fromarray(image)))
        np.testing.assert_array_equal(equalize({'img': image})['img'], expected)


@pytest.mark.parametrize('name', ['digits', 'cifar10'])
def test_all_randomness_is_seeded(data, name):
    """NumPy, `random` and torch are the three that mmengine seeds in each worker."""
    config = load(f'ncd_{name}')
    data(config)
    train = DATASETS.build(config.train_dataloader.dataset)

    def views(seed):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        return [train[index]['inputs'] for index in range(20)]

    first, again, other = views(0), views(0), views(1)
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    assert any(not torch.equal(a, b) for x, y in zip(first, other, strict=True) for a, b in zip(x, y, strict=True))
    assert any(not torch.equal(x[0], x[1]) for x in first)
