import numpy as np
import pytest
import torch
from scipy import stats

from mmkd_ext.ops.random import counter_keys
from mmkd_ext.registry import MODELS
from mmkd_ext.transforms.batch import BatchCompose, BatchMultiView, BatchRandomChoice, BatchTransform
from mmkd_ext.transforms.draws import BatchDraws


class Noise(BatchTransform):
    """Adds to each image a number of its own, below a limit, and then a constant."""

    def __init__(self, limit, constant=0):
        super().__init__()
        self.limit = limit
        self.constant = constant

    def transform(self, images_BCHW, draws):
        noise = torch.from_numpy(np.floor(draws.uniform(1)[:, 0] * self.limit)).byte()
        return images_BCHW + noise.view(-1, 1, 1, 1) + self.constant


def draws(num_images):
    return BatchDraws(counter_keys(0, np.arange(num_images)))


def zeros(num_images, size=2):
    return torch.zeros(num_images, 3, size, size, dtype=torch.uint8)


def test_choice_runs_each_pipeline_on_its_share():
    choice = BatchRandomChoice([Noise(5), [Noise(5, 50), Noise(5, 50)], Noise(5, 200)])
    values = choice(zeros(6000), draws(6000))[:, 0, 0, 0].numpy()
    counts = np.histogram(values, bins=[0, 50, 110, 256])[0]
    assert stats.chisquare(counts).pvalue > 1e-3
    assert set(values) == {*range(5), *range(100, 109), *range(200, 205)}


def test_choice_keeps_the_order_of_images():
    images = torch.arange(200, dtype=torch.uint8).view(-1, 1, 1, 1)
    chosen = BatchRandomChoice([Noise(1), Noise(1, 50)])(images, draws(200))
    assert set((chosen - images).flatten().tolist()) == {0, 50}


def test_views_differ_and_each_image_has_its_own():
    views = BatchMultiView([2, 1], [Noise(200), [Noise(200)]])(zeros(3000), draws(3000))
    assert [tuple(view.shape) for view in views] == [(3000, 3, 2, 2)] * 3
    values = [view[:, 0, 0, 0].double() for view in views]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert stats.pearsonr(values[first], values[second]).pvalue > 1e-3


def full_pipeline():
    jitter = dict(type='mmkd_ext.BatchColorJitter', prob=0.6, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    crops = [
        dict(type='mmkd_ext.BatchRandomCrop', size=16, padding=2),
        dict(type='mmkd_ext.BatchRandomResizedCrop', size=16, scale=(0.5, 1.0)),
    ]
    tones = [dict(type='mmkd_ext.BatchSolarize', prob=0.3), dict(type='mmkd_ext.BatchEqualize', prob=0.3)]
    view = [dict(type='mmkd_ext.BatchRandomChoice', transforms=crops), dict(type='mmkd_ext.BatchRandomFlip')]
    return BatchMultiView([2, 1], [[*view, jitter, *tones], [*view, *tones]])


@pytest.mark.usefixtures('host_scope')
def test_what_an_image_becomes_depends_on_no_other_image():
    images = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8)
    whole = full_pipeline()(images, draws(24))
    order = np.random.default_rng(0).permutation(24)
    for rows in (order[:7], order[7:8], order[8:]):
        part = full_pipeline()(images[rows], draws(24).select(rows))
        for view, part_view in zip(whole, part, strict=True):
            assert torch.equal(part_view, view[rows])
    assert not torch.equal(whole[0], whole[1])


def test_no_images():
    assert [len(view) for view in full_pipeline()(zeros(0, 16), draws(0))] == [0, 0, 0]


def test_composition_of_configs_and_objects():
    compose = BatchCompose([Noise(1, 3), dict(type='mmkd_ext.BatchRandomFlip')])
    assert (compose(zeros(4), draws(4)) == 3).all()


def test_is_found_in_the_registry():
    view = MODELS.build(dict(type='mmkd_ext.BatchMultiView', num_views=[2], transforms=[Noise(1)]))
    assert isinstance(view, BatchMultiView)


@pytest.mark.parametrize('num_views', [[2, 2], [], [0]])
def test_numbers_of_views_that_do_not_fit(num_views):
    with pytest.raises(ValueError, match='number of views >= 1 for each of the 1 pipelines'):
        BatchMultiView(num_views, [Noise(1)])


def test_nothing_to_choose_from():
    with pytest.raises(ValueError, match='expected transforms to choose from'):
        BatchRandomChoice([])
