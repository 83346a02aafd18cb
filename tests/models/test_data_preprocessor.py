import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.logging import MessageHub
from mmengine.structures import BaseDataElement

from mmkd_ext.models import MultiViewDataPreprocessor
from mmkd_ext.registry import MODELS

MEAN, STD = [10.0, 20.0, 30.0], [2.0, 4.0, 8.0]


def _dataset(sizes):
    images = [[torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for size in sizes] for _ in range(5)]
    samples = [BaseDataElement(gt_label=torch.tensor([row - 1])) for row in range(5)]
    return images, [{'inputs': image, 'data_samples': sample} for image, sample in zip(images, samples, strict=True)]


def _expected(batch, to_rgb):
    batch = batch[:, [2, 1, 0]] if to_rgb else batch
    return (batch.double() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
@pytest.mark.parametrize('to_rgb', [False, True])
def test_views_of_several_sizes(collate, to_rgb):
    images, dataset = _dataset([8, 8, 5, 5])
    preprocessor = MODELS.build(
        {'type': 'mmkd_ext.MultiViewDataPreprocessor', 'mean': MEAN, 'std': STD, 'to_rgb': to_rgb}
    )
    data = preprocessor(collate(dataset), training=True)
    assert isinstance(data['inputs'], list)
    for index, view in enumerate(data['inputs']):
        batch = torch.stack([image[index] for image in images])
        torch.testing.assert_close(view, _expected(batch, to_rgb).float())
    assert [int(sample.gt_label) for sample in data['data_samples']] == [-1, 0, 1, 2, 3]


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
def test_single_images(collate):
    images, dataset = _dataset([8])
    for sample in dataset:
        sample['inputs'] = sample['inputs'][0]
    inputs = MultiViewDataPreprocessor(MEAN, STD)(collate(dataset))['inputs']
    torch.testing.assert_close(inputs, _expected(torch.stack([image[0] for image in images]), False).float())


def test_input_is_not_modified():
    batch = torch.full((2, 3, 4, 4), 7.0)
    MultiViewDataPreprocessor(MEAN, STD, to_rgb=True)({'inputs': batch})
    assert (batch == 7).all()


def test_constants_are_no_part_of_a_checkpoint():
    assert not MultiViewDataPreprocessor(MEAN, STD).state_dict()


@pytest.mark.parametrize(
    ('inputs', 'found'),
    [
        ('images', 'a str'),
        ([], 'a list'),
        (torch.zeros(3, 4, 4), r'a tensor of shape \(3, 4, 4\)'),
        ([[torch.zeros(4, 4)]], r'a list of a list of a tensor of shape \(4, 4\)'),
        ([torch.zeros(3, 4, 4), [torch.zeros(3, 4, 4)]], 'a list of a tensor'),
    ],
)
def test_unknown_layouts_are_refused(inputs, found):
    with pytest.raises(TypeError, match=rf'but got {found}.*default_collate'):
        MultiViewDataPreprocessor(MEAN, STD)({'inputs': inputs})


@pytest.mark.parametrize('data', [torch.zeros(1, 3, 4, 4), {'img': 1}])
def test_batch_without_inputs_is_refused(data):
    with pytest.raises(TypeError, match=r"batch dict .*'inputs'"):
        MultiViewDataPreprocessor(MEAN, STD)(data)


def test_images_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match='images of one shape in a view'):
        MultiViewDataPreprocessor(MEAN, STD)({'inputs': [torch.zeros(3, 4, 4), torch.zeros(3, 5, 5)]})


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r'3 channels .*mean'):
        MultiViewDataPreprocessor(MEAN, STD)({'inputs': torch.zeros(2, 1, 4, 4)})


@pytest.mark.parametrize(('std', 'message'), [([1.0], 'one length but got 3 and 1'), ([1.0, 0.0, 1.0], 'std > 0')])
def test_wrong_constants_are_refused(std, message):
    with pytest.raises(ValueError, match=message):
        MultiViewDataPreprocessor(MEAN, std)


# --- augmentation of the batch

FLIP = {'type': 'mmkd_ext.BatchRandomFlip'}
VIEWS = {'type': 'mmkd_ext.BatchMultiView', 'num_views': [2], 'transforms': [[FLIP]]}


@pytest.fixture
def training():
    """Say what a Runner says: its seed and the iteration."""

    def say(seed, iteration):
        MessageHub.get_current_instance().update_info('seed', seed)
        MessageHub.get_current_instance().update_info('iter', iteration)

    say(0, 0)
    return say


def augmentable(rows):
    images = torch.arange(3 * 4 * 4, dtype=torch.uint8).view(3, 4, 4)
    samples = [BaseDataElement(metainfo={'sample_idx': row}) for row in rows]
    return {'inputs': images.expand(len(rows), -1, -1, -1).contiguous(), 'data_samples': samples}


@pytest.mark.parametrize('augments', [[FLIP], [VIEWS]])
@pytest.mark.parametrize('to_rgb', [False, True])
def test_augmented_batches_are_normalised_after_their_channels_are_in_order(training, augments, to_rgb):
    data = augmentable(range(40))
    inputs = MultiViewDataPreprocessor(MEAN, STD, to_rgb, batch_augments=augments)(data, training=True)['inputs']
    assert isinstance(inputs, list) == (augments == [VIEWS])
    plain = _expected(data['inputs'], to_rgb).float()
    for view in inputs if isinstance(inputs, list) else [inputs]:
        is_flipped = (view == plain.flip(3)).flatten(1).all(1)
        assert 5 < is_flipped.sum() < 35
        torch.testing.assert_close(view, torch.where(is_flipped.view(-1, 1, 1, 1), plain.flip(3), plain))


def test_without_training_nothing_is_augmented():
    data = {'inputs': augmentable(range(40))['inputs']}
    inputs = MultiViewDataPreprocessor(MEAN, STD, batch_augments=[VIEWS])(data)['inputs']
    torch.testing.assert_close(inputs, _expected(data['inputs'], False).float())


def test_augmentation_follows_from_seed_iteration_and_sample(training):
    preprocessor = MultiViewDataPreprocessor(MEAN, STD, batch_augments=[FLIP])

    def run(rows=range(60)):
        return preprocessor(augmentable(rows), training=True)['inputs']

    first = run()
    assert torch.equal(run(), first)
    assert torch.equal(run([7, 3]), first[[7, 3]])
    for seed, iteration in ((0, 1), (1, 0)):
        training(seed, iteration)
        assert not torch.equal(run(), first)
    training(0, 0)
    assert torch.equal(run(), first)


def test_channels_last():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    view = MultiViewDataPreprocessor(MEAN, STD, channels_last=True)({'inputs': images})['inputs']
    assert view.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(view, _expected(images, False).float())


@pytest.mark.parametrize('inputs', [torch.zeros(2, 3, 4, 4), [torch.zeros(2, 3, 4, 4, dtype=torch.uint8)] * 2])
def test_only_single_uint8_images_are_augmented(inputs):
    with pytest.raises(TypeError, match=r'uint8 .*batch_augments'):
        MultiViewDataPreprocessor(MEAN, STD, batch_augments=[FLIP])({'inputs': inputs}, training=True)
