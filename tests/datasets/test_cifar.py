import pickle

import numpy as np
import pytest

from mmkd_ext.datasets import CIFAR10, CIFAR100
from mmkd_ext.datasets.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES, CIFAR100_COARSE_CLASSES

PER_FILE = {'train': 6, 'test': 4}


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(CIFAR10, 'images_per_file', PER_FILE)
    monkeypatch.setattr(CIFAR100, 'images_per_file', PER_FILE)


def arrays(number, num_labels, seed):
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, high, number, dtype=np.uint8) for high in ((10,), (20, 100))[num_labels - 1]]
    return labels, rng.integers(0, 256, (number, 3072), dtype=np.uint8)


def write(folder, form, num_labels):
    """Write the official files of one form and return what they hold, {split: (list of labels, pixels)}."""
    folder.mkdir(parents=True, exist_ok=True)
    if num_labels == 1:
        files = {'train': [f'data_batch_{i}' for i in range(1, 6)], 'test': ['test_batch']}
        keys = ['labels']
    else:
        files = {'train': ['train'], 'test': ['test']}
        keys = ['coarse_labels', 'fine_labels']
    written = {}
    for split, names in files.items():
        parts = [arrays(PER_FILE[split], num_labels, seed) for seed, _ in enumerate(names)]
        for name, (labels, pixels) in zip(names, parts, strict=True):
            if form == 'binary':
                np.concatenate([np.stack(labels, 1), pixels], 1).tofile(folder / f'{name}.bin')
            else:
                content = {'data': pixels, **dict(zip(keys, (v.tolist() for v in labels), strict=True))}
                (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        all_labels = [np.concatenate(column) for column in zip(*(labels for labels, _ in parts), strict=True)]
        written[split] = all_labels, np.concatenate([pixels for _, pixels in parts])
    return written


def check(dataset, labels, pixels):
    np.testing.assert_array_equal(dataset.get_gt_labels(), labels)
    for index in (0, len(dataset) - 1):
        expected = np.stack(np.split(pixels[index], 3), axis=-1).reshape(32, 32, 3)  # planes red, green, blue
        np.testing.assert_array_equal(dataset[index]['img'], expected)


FORMS = ['binary', 'pickle']


@pytest.mark.parametrize(('form', 'folder'), [(f, d) for f in FORMS for d in ('.', 'cifar-10-batches-')])
def test_cifar10(tmp_path, form, folder):
    place = tmp_path if folder == '.' else tmp_path / (folder + {'binary': 'bin', 'pickle': 'py'}[form])
    written = write(place, form, 1)
    train, test = CIFAR10(data_root=str(tmp_path)), CIFAR10(data_root=str(tmp_path), split='test')
    assert (len(train), len(test)) == (30, 4)
    check(train, written['train'][0][0], written['train'][1])
    check(test, written['test'][0][0], written['test'][1])


@pytest.mark.parametrize(('form', 'folder'), [(f, d) for f in FORMS for d in ('.', 'cifar-100-')])
@pytest.mark.parametrize(('label', 'column'), [('coarse', 0), ('fine', 1)])
def test_cifar100(tmp_path, form, folder, label, column):
    place = tmp_path if folder == '.' else tmp_path / (folder + {'binary': 'binary', 'pickle': 'python'}[form])
    written = write(place, form, 2)
    for split in ('train', 'test'):
        dataset = CIFAR100(data_root=str(tmp_path), split=split, label=label)
        check(dataset, written[split][0][column], written[split][1])
        assert len(dataset.metainfo['classes']) == {'coarse': 20, 'fine': 100}[label]


def test_class_names():
    """Order of the official files: alphabetical; both ends and the classes that split CIFAR100-50 and -20."""
    for names, number in ((CIFAR10_CLASSES, 10), (CIFAR100_CLASSES, 100), (CIFAR100_COARSE_CLASSES, 20)):
        assert len(set(names)) == number
        assert list(names) == sorted(names) or number == 20
    assert [CIFAR100_CLASSES[index] for index in (0, 49, 50, 79, 80, 99)] == [
        'apple', 'mountain', 'mouse', 'spider', 'squirrel', 'worm']  # fmt: skip
    assert CIFAR100_COARSE_CLASSES[14] == 'people'


def test_class_names_are_those_of_mmpretrain():
    from mmpretrain.datasets.categories import CIFAR10_CATEGORIES, CIFAR100_CATEGORIES

    assert tuple(CIFAR10_CATEGORIES) == CIFAR10_CLASSES
    assert tuple(CIFAR100_CATEGORIES) == CIFAR100_CLASSES


def test_missing_folder(tmp_path):
    message = r'expected in .*nowhere train.bin \(there or in cifar-100-binary/\) or train .* but got no such folder'
    with pytest.raises(FileNotFoundError, match=message):
        CIFAR100(data_root=str(tmp_path / 'nowhere'))


def test_missing_file_names_what_is_there(tmp_path):
    write(tmp_path, 'binary', 1)
    (tmp_path / 'data_batch_3.bin').unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3.bin.*but got \['data_batch_1.bin', .*unpack"):
        CIFAR10(data_root=str(tmp_path))


def test_truncated_file(tmp_path):
    write(tmp_path, 'binary', 2)
    path = tmp_path / 'train.bin'
    path.write_bytes(path.read_bytes()[:-3074])
    with pytest.raises(ValueError, match=r'expected 18444 bytes \(6 records of 3074\)'):
        CIFAR100(data_root=str(tmp_path))


def test_files_of_the_other_data_set(tmp_path):
    write(tmp_path, 'binary', 2)
    rows = np.fromfile(tmp_path / 'train.bin', dtype=np.uint8).reshape(6, 3074)
    rows[:, 1] = 100
    rows.tofile(tmp_path / 'train.bin')
    with pytest.raises(ValueError, match=r'expected labels 0..99 in .*train.bin but got 100..100'):
        CIFAR100(data_root=str(tmp_path))


def test_official_sizes_are_the_default(tmp_path, monkeypatch):
    monkeypatch.undo()
    write(tmp_path, 'binary', 2)
    with pytest.raises(ValueError, match='expected 153700000 bytes'):  # the official train.bin
        CIFAR100(data_root=str(tmp_path))


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="CIFAR10: expected split 'train' or 'test' but got 'val'"):
        CIFAR10(data_root=str(tmp_path), split='val')
    with pytest.raises(ValueError, match="expected label 'fine' or 'coarse' but got 'super'"):
        CIFAR100(data_root=str(tmp_path), label='super')
