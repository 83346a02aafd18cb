"""Known and novel classes."""

import json
import pickle
import time

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, default_collate
from mmengine.structures import BaseDataElement
from PIL import Image
from torch.utils.data import DataLoader

from mmkd_ext.datasets import ArrayDataset, NovelClassSplit
from mmkd_ext.datasets.novel_class_split import partition_classes

# --------------------------------------------------------------------------------------------------
# The data set.


pytestmark = pytest.mark.usefixtures('host_scope')

NAMES = ('cat', 'dog', 'fox', 'hen', 'owl')
LABELS = np.tile(np.arange(5), 8)
EVERY_KEY = ('sample_idx', 'split_name', 'img_path', 'species', 'ori_shape', 'folder')


class Talkative(ArrayDataset):
    """Images that are their own index, and infos that tell the class in every way."""

    METAINFO = {'classes': NAMES}  # noqa: RUF012

    def __init__(self, labels=LABELS, pipeline=None, **kwargs):
        self.labels = np.asarray(labels)
        pack = {'type': 'PackInputs', 'meta_keys': EVERY_KEY, 'algorithm_keys': ('one_hot',)}
        super().__init__(pipeline=[pack] if pipeline is None else pipeline, **kwargs)

    def load_arrays(self):
        index = np.arange(len(self.labels), dtype=np.uint8)
        return np.broadcast_to(index[:, None, None, None], (len(index), 4, 4, 3)).copy(), self.labels

    def get_data_info(self, idx):
        info = super().get_data_info(idx)
        name = NAMES[info['gt_label']]
        told = {'img_path': f'/data/{name}/{idx}.png', 'species': name, 'folder': name, 'gt_score': np.eye(5)[1]}
        return {**info, **told, 'one_hot': torch.eye(5)[info['gt_label']]}


def leaves(value):
    """Everything that a batch holds, as nested plain Python data."""
    if isinstance(value, BaseDataElement):
        return {key: leaves(item) for key, item in value.all_items()}
    if isinstance(value, dict):
        return {key: leaves(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [leaves(item) for item in value]
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value


def batch_of(split):
    return leaves(default_collate([split[index] for index in range(len(split))]))


# --- labels, subsets, names


def test_labels_are_known_first_and_hidden():
    split = NovelClassSplit(Talkative(), known=[3, 1], novel=['owl', 'cat'])
    assert split.metainfo == {'classes': ('hen', 'dog', 'owl', 'cat'), 'num_known': 2}
    expected = {3: 0, 1: 1, 4: -1, 0: -1}  # 2 (fox) is in neither list: dropped
    source = [label for label in LABELS if label != 2]
    assert split.get_gt_labels().tolist() == [expected[label] for label in source]
    assert split.labelled.tolist() == [label in (3, 1) for label in source]
    assert [split[index]['data_samples'].gt_label.tolist() for index in range(len(split))] == [
        [expected[label]] for label in source
    ]
    assert [split.get_cat_ids(index) for index in range(4)] == [[-1], [1], [0], [-1]]


def test_images_belong_to_the_labels():
    split = NovelClassSplit(Talkative(), known=[3, 1], hide_labels=False)
    for index in range(len(split)):
        sample = split[index]
        source = int(sample['inputs'][0, 0, 0])
        assert split.classes[int(sample['data_samples'].gt_label)] == NAMES[LABELS[source]]


def test_evaluation_keeps_labels_and_mask():
    split = NovelClassSplit(Talkative(), known=2, subset='unlabelled', hide_labels=False, name='unlabelled_train')
    assert split.get_gt_labels().tolist() == [2, 3, 4] * 8
    assert not split.labelled.any()
    assert split[0]['data_samples'].split_name == 'unlabelled_train'
    assert split[0]['data_samples'].img_path == '/data/fox/2.png'


def test_subsets_partition_the_data():
    parts = [NovelClassSplit(Talkative(), known=2, subset=s) for s in ('labelled', 'unlabelled')]
    images = [set(torch.stack([part[i]['inputs'][0, 0, 0] for i in range(len(part))]).tolist()) for part in parts]
    assert images[0] | images[1] == set(range(40))
    assert images[0] & images[1] == set()


def test_sample_idx_finds_the_sample_again():
    split = NovelClassSplit(Talkative(), known=2, subset='unlabelled')
    for index in (0, 5, len(split) - 1, -1):
        sample = split[index]
        again = split[sample['data_samples'].sample_idx]
        assert torch.equal(sample['inputs'], again['inputs'])
    with pytest.raises(IndexError):
        split[len(split)]


def test_names_are_indices_where_the_data_set_has_none():
    dataset = Talkative()
    dataset._metainfo.pop('classes')
    assert NovelClassSplit(dataset, known=2).classes == ('0', '1', '2', '3', '4')


# --- labelled fraction (GCD)


def test_labelled_fraction_is_per_class_and_seeded():
    splits = [NovelClassSplit(Talkative(), known=2, labelled_fraction=0.5, seed=seed) for seed in (0, 0, 1)]
    for split in splits:
        assert len(split) == 40
        assert np.bincount(split.get_gt_labels() + 1).tolist() == [32, 4, 4]
    np.testing.assert_array_equal(splits[0].labelled, splits[1].labelled)
    assert (splits[0].labelled != splits[2].labelled).any()


def test_unlabelled_images_of_known_classes_keep_their_label_for_evaluation():
    split = NovelClassSplit(Talkative(), known=2, labelled_fraction=0.5, subset='unlabelled', hide_labels=False)
    assert np.bincount(split.get_gt_labels()).tolist() == [4, 4, 8, 8, 8]


# --- hidden labels are gone


def test_nothing_in_a_batch_depends_on_a_hidden_label():
    permuted = np.array([0, 1, 4, 2, 3])[LABELS]
    batches = [batch_of(NovelClassSplit(Talkative(labels), known=2)) for labels in (LABELS, permuted)]
    assert batches[0] == batches[1]


@pytest.mark.parametrize('fraction', [0.25, 1.0])
def test_no_hidden_sample_tells_its_class(fraction):
    split = NovelClassSplit(Talkative(), known=2, labelled_fraction=fraction)
    for index in np.flatnonzero(~split.labelled):
        told = leaves(split[index])
        assert set(told['data_samples']) == {'gt_label', 'sample_idx', 'split_name'}
        assert told['data_samples']['gt_label'] == [-1]
        assert not any(name in str(told) for name in NAMES)


def test_a_sample_without_packing_loses_its_path_too():
    split = NovelClassSplit(Talkative(pipeline=[]), known=2)
    hidden, seen = split[2], split[0]
    assert set(hidden) == {'img', 'gt_label', 'sample_idx', 'split_name'}
    assert seen['img_path'] == '/data/cat/0.png'


@pytest.fixture
def image_folder(tmp_path):
    """Folders class/number.png; red differs from blue, so that a swapped channel order shows."""
    for class_number, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        for number in range(3):
            image = np.zeros((6, 5, 3), dtype=np.uint8)
            image[..., 0], image[..., 2] = 10 * class_number + number, 200
            Image.fromarray(image).save(tmp_path / name / f'{number}.png')
    return tmp_path


def folder_config(root, num_views=2):
    load = [{'type': 'LoadImageFromFile', 'imdecode_backend': 'pillow'}, {'type': 'NumpyToPIL', 'to_rgb': True}]
    views = {
        'type': 'MultiView',
        'num_views': [num_views],
        'transforms': [[{'type': 'torchvision/CenterCrop', 'size': 4}]],
    }
    return {'type': 'CustomDataset', 'data_root': str(root), 'pipeline': [*load, views, {'type': 'PackInputs'}]}


def test_image_folder_of_the_user(image_folder):
    split = NovelClassSplit(folder_config(image_folder), known=['owl', 'cat'])
    assert split.classes == ('owl', 'cat', 'dog', 'fox', 'hen')
    batch = default_collate([split[index] for index in range(len(split))])
    views = batch['inputs']
    assert len(views) == 2
    assert views[0].shape == (15, 3, 4, 4)
    assert views[0][:, 0, 0, 0].tolist() == [10 * c + n for c in range(5) for n in range(3)]  # red
    assert views[0][:, 2, 0, 0].tolist() == [200] * 15  # blue
    assert split.get_gt_labels().tolist() == [1] * 3 + [-1] * 9 + [0] * 3
    hidden = [leaves(split[index]['data_samples']) for index in np.flatnonzero(~split.labelled)]
    assert not any(name in str(hidden) for name in (*NAMES, str(image_folder)))


# --- bad input


def test_unreadable_image(image_folder):
    (image_folder / 'dog' / '1.png').write_bytes(b'no image')
    split = NovelClassSplit(folder_config(image_folder), known=2)
    message = r"'train' over CustomDataset: expected image 4 \(.*dog/1.png\) to pass the pipeline but got .*; repair"
    with pytest.raises(RuntimeError, match=message):
        split[4]
    (image_folder / 'dog' / '1.png').unlink()
    with pytest.raises(RuntimeError, match=r'image 4 .* but got FileNotFoundError'):
        split[4]


def test_pipeline_that_returns_nothing():
    with pytest.raises(RuntimeError, match=r'expected image 3 .* but got nothing'):
        NovelClassSplit(Talkative(pipeline=[lambda info: None]), known=2)[3]


def test_empty_image_folder(tmp_path, image_folder):
    (tmp_path / 'empty' / 'cat').mkdir(parents=True)
    with pytest.raises(RuntimeError, match='Found 0 files'):
        NovelClassSplit(folder_config(tmp_path / 'empty'), known=1)


class WithoutLabels(Talkative):
    def get_gt_labels(self):
        raise KeyError('gt_label')


class TooFewLabels(Talkative):
    def get_gt_labels(self):
        return LABELS[:-1]


class ManyLabels(Talkative):
    def get_gt_labels(self):
        return np.eye(5)[LABELS][:, 0]


@pytest.mark.parametrize('labels', [[[1], [0, 2], [1]], [[1], [2], [0]]])
def test_several_labels_of_an_image_are_refused(labels):
    class Multi(Talkative):
        def get_data_info(self, idx):
            return {'img_path': 'x', 'gt_label': labels[idx]}

        def get_gt_labels(self):
            return np.array([self.get_data_info(index)['gt_label'] for index in range(len(self))])

    with pytest.raises(ValueError, match=r'one label for each image but image 0 has \[1\]|got shape \(3, 1\)'):
        NovelClassSplit(Multi(labels=[0, 1, 2]), known=1)


def test_errors():
    for dataset, arguments, parts in (
        (Talkative, {'known': 5}, "'train' over Talkative: .*unlabelled images.*none among 40"),
        (Talkative, {'known': 5, 'subset': 'unlabelled'}, 'unlabelled images.*none'),
        (Talkative, {'known': 2, 'subset': 'half'}, "subset.*'all', 'labelled', 'unlabelled'.*'half'"),
        (Talkative, {'known': 2, 'labelled_fraction': 0.0}, r'labelled_fraction.*\(0, 1\].*got 0\.0'),
        (Talkative, {'known': 2, 'labelled_fraction': 1.5}, r'got 1\.5'),
        (WithoutLabels, {'known': 2}, 'over WithoutLabels: .*`gt_label`.*none'),
        (TooFewLabels, {'known': 2}, r'40 labels.*\(39,\)'),
        (ManyLabels, {'known': 2}, r'class indices >= 0.*got'),
        (lambda: Talkative([0, 1, 2]), {'known': ['owl']}, 'labelled images.*none'),
        (lambda: Talkative([0, 7, 2], pipeline=[]), {'known': 1}, 'labels below 5.*label 7'),
        (lambda: Talkative([0, -1, 2], pipeline=[]), {'known': 1}, 'class indices >= 0'),
        (lambda: Talkative([0, 1, 1]), {'known': 2}, 'unlabelled images.*none among 3'),
        (
            lambda: Talkative([0, 0]),
            {'known': [1], 'novel': [2], 'hide_labels': False, 'name': 'test'},
            "'test' over Talkative: .*unlabelled images.*none among 0",
        ),
        (lambda: Talkative([2, 3]), {'known': 2, 'subset': 'labelled'}, 'labelled images.*none among 0'),
    ):
        with pytest.raises(ValueError, match=f'^NovelClassSplit.*{parts}.*;'):
            NovelClassSplit(dataset(), **arguments)


def test_evaluation_may_hold_novel_images_alone():
    assert len(NovelClassSplit(Talkative([2, 3, 4]), known=2, hide_labels=False, name='test')) == 3


def test_joined_data_sets_are_wrapped_one_by_one(image_folder):
    joined = ConcatDataset([folder_config(image_folder)] * 2)
    with pytest.raises(TypeError, match='expected a data set with a `pipeline` but got ConcatDataset; wrap each'):
        NovelClassSplit(joined, known=2)


def test_supervised_data_needs_no_novel_class():
    assert len(NovelClassSplit(Talkative(), known=5, subset='labelled')) == 40
    assert len(NovelClassSplit(Talkative(), known=5, hide_labels=False)) == 40


# --- mmengine's other parts


def test_concatenation_for_evaluation():
    config = {'type': 'mmkd_ext.NovelClassSplit', 'dataset': {'type': Talkative}, 'known': 2}
    both = ConcatDataset(
        [
            {**config, 'subset': 'unlabelled', 'hide_labels': False, 'name': 'unlabelled_train'},
            {**config, 'hide_labels': False, 'name': 'test'},
        ]
    )
    assert both.metainfo['num_known'] == 2
    names = [both[index]['data_samples'].split_name for index in range(len(both))]
    assert names == ['unlabelled_train'] * 24 + ['test'] * 40


@pytest.mark.parametrize('serialize', [True, False])
def test_serialised_and_concatenated_sources(image_folder, serialize):
    config = {**folder_config(image_folder), 'serialize_data': serialize}
    assert NovelClassSplit(config, known=2).get_gt_labels().tolist() == [0] * 3 + [1] * 3 + [-1] * 9
    lazy = {**config, 'lazy_init': True}
    assert len(NovelClassSplit(lazy, known=2)) == 15


def test_workers_see_the_same_data():
    split = NovelClassSplit(Talkative(), known=2)
    loaders = [DataLoader(split, batch_size=8, num_workers=n, collate_fn=default_collate) for n in (0, 2)]
    plain, parallel = ([leaves(batch) for batch in loader] for loader in loaders)
    assert plain == parallel
    assert leaves(pickle.loads(pickle.dumps(split))[7]) == leaves(split[7])


def test_cost_per_sample():
    """Less than 30 us beyond the wrapped data set; the best of several rounds, since the machine may be busy."""

    def seconds(get):
        rounds = []
        for _ in range(15):
            start = time.perf_counter()
            for index in range(40):
                get(index)
            rounds.append((time.perf_counter() - start) / 40)
        return min(rounds)

    plain = Talkative(pipeline=[])
    split = NovelClassSplit(plain, known=2)
    assert seconds(split.__getitem__) - seconds(plain.__getitem__) < 30e-6


# --------------------------------------------------------------------------------------------------
# Which classes are known.


def test_classes_are_told_by_number_list_or_name():
    for known, novel, expected in (
        (2, None, ([0, 1], [2, 3, 4])),
        (5, None, ([0, 1, 2, 3, 4], [])),
        ([4, 0], None, ([4, 0], [1, 2, 3])),
        (['owl', 'cat'], ['hen', 'dog'], ([4, 0], [3, 1])),
        ([0, 'owl'], [1], ([0, 4], [1])),
        (2, ['owl'], ([0, 1], [4])),
    ):
        assert partition_classes(known, novel, NAMES) == expected


def test_split_file_strings_difficulties_hard_medium_easy(tmp_path):
    path = tmp_path / 'ssb.json'
    path.write_text(json.dumps({'known': [3, 1], 'unknown': {'Easy': [0], 'Medium': [4], 'Hard': [2]}}))
    assert partition_classes(str(path), None, NAMES) == ([3, 1], [2, 4, 0])


def test_what_is_no_partition_is_refused():
    for known, novel, error, parts in (
        (['dgo'], None, KeyError, r"\.known.*'dgo'.*\['dog'"),
        ([0], ['howl'], KeyError, r"\.novel.*'howl'.*\['owl'"),
        ([5], None, ValueError, r'0\.\.4.*got 5'),
        ([-1], None, ValueError, r'0\.\.4.*got -1'),
        ([0, 'cat'], None, ValueError, r"once.*\['cat'\]"),
        (0, None, ValueError, r'1\.\.5.*got 0'),
        (6, None, ValueError, r'1\.\.5.*got 6'),
        ([], None, ValueError, 'at least one class.*none'),
        ([0, 1], [1, 2], ValueError, r"disjoint.*\['dog'\]"),
        (2, 3, TypeError, r'\.novel.*got 3'),
        (1.5, None, TypeError, r'\.known.*got 1\.5'),
        (True, None, TypeError, 'got True'),
        ([0.5], None, TypeError, r'got 0\.5'),
        ('nowhere.json', None, FileNotFoundError, r'SSB.*nowhere\.json'),
        ('ssb.json', [1], ValueError, r'`novel`.*ssb\.json'),
    ):
        with pytest.raises(error, match=f'^.?NovelClassSplit.*{parts}') as caught:
            partition_classes(known, novel, NAMES)
        assert '; ' in str(caught.value)


def test_damaged_split_file(tmp_path):
    path = tmp_path / 'ssb.json'
    for text in ('not json', '[1, 2]', '{"known": [1]}', '{"known": [1], "unknown": [2]}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r'expected \{"known": .*ssb\.json but got .*; repair'):
            partition_classes(str(path), None, NAMES)
