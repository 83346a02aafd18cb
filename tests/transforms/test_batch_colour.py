import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import functional

from mmkd_ext.ops.random import counter_keys
from mmkd_ext.transforms.colour import BatchColorJitter, BatchEqualize, BatchSolarize
from mmkd_ext.transforms.draws import BatchDraws

RAMP = torch.arange(256, dtype=torch.uint8).view(1, 1, 256).expand(3, -1, -1)


def run(transform, images):
    return transform(images, BatchDraws(counter_keys(0, np.arange(len(images)))))


@pytest.mark.parametrize(
    ('quality', 'amount', 'function', 'factors'),
    [
        ('brightness', 0.4, 'adjust_brightness', (0.6, 1.4)),
        ('contrast', 1.5, 'adjust_contrast', (0.0, 2.5)),
        ('saturation', 0.2, 'adjust_saturation', (0.8, 1.2)),
        ('hue', 0.1, 'adjust_hue', (-0.1, 0.1)),
    ],
)
def test_factors_are_uniform_as_torchvisions(quality, amount, function, factors):
    """Applied to one image, the results are distributed as those of torchvision's function of uniform factors."""
    image = np.array([[[200, 80, 30], [10, 90, 60]]], dtype=np.uint8)
    batch = torch.from_numpy(image).permute(2, 0, 1).expand(2000, -1, -1, -1)
    found = run(BatchColorJitter(**{quality: amount}), batch).float().mean((2, 3))
    expected = [
        np.asarray(getattr(functional, function)(Image.fromarray(image), factor)).mean((0, 1))
        for factor in np.linspace(*factors, 2000)
    ]
    for ours, theirs in zip(found.T, np.array(expected).T, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_orders_are_all_there_and_equally_likely(monkeypatch):
    """Each change writes its number behind those of the turns before."""
    monkeypatch.setattr('mmkd_ext.transforms.colour.adjust_hue', lambda images, shifts: images * 5 + 4)
    monkeypatch.setattr(
        'mmkd_ext.transforms.colour.adjust_light', lambda images, kinds, _: images * 5 + kinds.view(-1, 1, 1, 1) + 1
    )
    digits = run(BatchColorJitter(1, 1, 1, 0.5), torch.zeros(4800, 3, 1, 1, dtype=torch.int64))[:, 0, 0, 0].tolist()
    expected = [((a * 5 + b) * 5 + c) * 5 + d for a, b, c, d in itertools.permutations(range(1, 5))]
    counts = Counter(digits)
    assert set(counts) == set(expected)
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_amounts_of_zero_leave_the_image():
    images = torch.randint(0, 256, (50, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(run(BatchColorJitter(), images), images)


def test_jitter_in_a_given_order_is_torchvisions(monkeypatch):
    """All four in one random order: image by image the composition of torchvision's functions."""
    recorded = []
    original = BatchDraws.uniform

    def record(self, num):
        recorded.append(original(self, num))
        return recorded[-1]

    monkeypatch.setattr(BatchDraws, 'uniform', record)
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    found = run(BatchColorJitter(0.4, 0.4, 0.2, 0.1), batch)
    factors, keys = recorded
    factors = np.array([0.6, 0.6, 0.8, -0.1]) + np.array([0.8, 0.8, 0.4, 0.2]) * factors
    names = ['adjust_brightness', 'adjust_contrast', 'adjust_saturation', 'adjust_hue']
    for image, result, factor, key in zip(images, found, factors, keys, strict=True):
        expected = Image.fromarray(image)
        for kind in np.argsort(key):
            expected = getattr(functional, names[kind])(expected, factor[kind])
        difference = np.abs(result.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected).astype(int))
        assert np.median(difference) == 0
        assert difference.mean() < 0.01


def test_solarize_draws_its_threshold_uniformly():
    solarized = run(BatchSolarize(), RAMP.expand(3000, -1, -1, -1))
    thresholds = (solarized[:, 0, 0] == RAMP[0, 0]).sum(1)
    assert stats.kstest(thresholds.numpy(), stats.uniform(0, 256).cdf).pvalue > 1e-3


def test_equalize_with_its_probability():
    dark = (RAMP // 4).repeat(1, 8, 1).expand(1000, -1, -1, -1)
    equalized = run(BatchEqualize(prob=0.2), dark)
    num_changed = int((equalized.flatten(1).amax(1) > 200).sum())
    assert stats.binomtest(num_changed, 1000, 0.2).pvalue > 1e-3


@pytest.mark.parametrize(('amounts', 'message'), [({'hue': 0.6}, 'hue <= 0.5'), ({'contrast': -1}, 'contrast >= 0')])
def test_bad_amounts(amounts, message):
    with pytest.raises(ValueError, match=f'BatchColorJitter: expected {message}'):
        BatchColorJitter(**amounts)


def test_grey_images_have_no_colour():
    with pytest.raises(ValueError, match='expected 3 channels, red, green and blue, but got 1'):
        run(BatchColorJitter(hue=0.1), torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
