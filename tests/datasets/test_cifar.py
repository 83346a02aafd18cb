"""CIFAR in all four official forms, and what is refused."""

import os
import pickle

import numpy as np
import pytest

from mmkd_ext.datasets import CIFAR10, CIFAR100
from mmkd_ext.datasets.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES, CIFAR100_COARSE_CLASSES, read_binary, read_pickle

# --------------------------------------------------------------------------------------------------
# Data sets.


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


def check_dataset(dataset, labels, pixels):
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
    check_dataset(train, written['train'][0][0], written['train'][1])
    check_dataset(test, written['test'][0][0], written['test'][1])


@pytest.mark.parametrize(('form', 'folder'), [(f, d) for f in FORMS for d in ('.', 'cifar-100-')])
@pytest.mark.parametrize(('label', 'column'), [('coarse', 0), ('fine', 1)])
def test_cifar100(tmp_path, form, folder, label, column):
    place = tmp_path if folder == '.' else tmp_path / (folder + {'binary': 'binary', 'pickle': 'python'}[form])
    written = write(place, form, 2)
    for split in ('train', 'test'):
        dataset = CIFAR100(data_root=str(tmp_path), split=split, label=label)
        check_dataset(dataset, written[split][0][column], written[split][1])
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
    with pytest.raises(ValueError, match=r"CIFAR10.*split.*'train', 'test'.*'val'"):
        CIFAR10(data_root=str(tmp_path), split='val')
    with pytest.raises(ValueError, match=r"CIFAR100.*label.*'fine', 'coarse'.*'super'"):
        CIFAR100(data_root=str(tmp_path), label='super')


# --------------------------------------------------------------------------------------------------
# Readers.


RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 3072), dtype=np.uint8)
COARSE = np.array([4, 1, 14, 8, 0], dtype=np.uint8)
FINE = np.array([0, 1, 2, 3, 99], dtype=np.uint8)
NAMES = ('coarse_labels', 'fine_labels')


def write_binary(path):
    path.write_bytes(b''.join(bytes([c, f]) + p.tobytes() for c, f, p in zip(COARSE, FINE, PIXELS, strict=True)))
    return path


def content(**changes):
    return {'data': PIXELS, 'coarse_labels': COARSE.tolist(), 'fine_labels': FINE.tolist(), **changes}


def write_pickle(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def check(images, labels):
    """Pixel by pixel against the description of the format: planes of 1024 red, green, blue, row by row."""
    assert images.shape == (5, 32, 32, 3)
    assert images.dtype == np.uint8
    for image in range(5):
        for row, column in ((0, 0), (0, 31), (7, 3), (31, 0)):
            for channel in range(3):
                assert images[image, row, column, channel] == PIXELS[image, channel * 1024 + row * 32 + column]
    np.testing.assert_array_equal(labels['coarse_labels'], COARSE)
    np.testing.assert_array_equal(labels['fine_labels'], FINE)


def test_binary(tmp_path):
    check(*read_binary(write_binary(tmp_path / 'train.bin'), NAMES, 5))


@pytest.mark.parametrize('size', [0, 5 * 3074 - 1, 5 * 3074 + 1, 4 * 3074])
def test_binary_of_wrong_size(tmp_path, size):
    path = tmp_path / 'train.bin'
    path.write_bytes(bytes(size))
    with pytest.raises(ValueError, match=rf'expected 15370 bytes \(5 records of 3074\) in .*train.bin but got {size}'):
        read_binary(path, NAMES, 5)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_of_every_protocol(tmp_path, protocol):
    check(*read_pickle(write_pickle(tmp_path / 'train', content(), protocol), NAMES, 5))


@pytest.mark.parametrize('module', [b'numpy.core.multiarray', b'numpy._core.multiarray'])
def test_pickle_of_numpy_1_and_2(tmp_path, module):
    written = pickle.dumps(content(), protocol=0)
    current = b'numpy._core.multiarray' if b'numpy._core.multiarray' in written else b'numpy.core.multiarray'
    (tmp_path / 'train').write_bytes(written.replace(current, module))
    check(*read_pickle(tmp_path / 'train', NAMES, 5))


def test_pickle_of_python_2(tmp_path):
    """Python 2 wrote `str` objects, which are bytes, for keys and for the buffer of the array."""
    buffer = PIXELS.tobytes()
    opcodes = [
        b'\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R',
        b'(K\x01K\x05M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R',
        b'(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89',
        b'T' + len(buffer).to_bytes(4, 'little') + buffer + b'tb',
        b'U\rcoarse_labels](' + b''.join(b'K' + bytes([label]) for label in COARSE) + b'e',
        b'U\x0bfine_labels](' + b''.join(b'K' + bytes([label]) for label in FINE) + b'eu.',
    ]
    (tmp_path / 'train').write_bytes(b''.join(opcodes))
    check(*read_pickle(tmp_path / 'train', NAMES, 5))


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_hostile_pickle_is_refused_by_name_and_not_run(tmp_path):
    marker = tmp_path / 'code_ran'
    path = write_pickle(tmp_path / 'train', content(filenames=Payload(marker)))
    with pytest.raises(ValueError, match=r'train calls (posix|nt)\.mkdir, which was refused; .* hostile'):
        read_pickle(path, NAMES, 5)
    assert not marker.exists()


@pytest.mark.parametrize('name', ['builtins\ngetattr', 'builtins\neval', 'numpy\nload', 'numpy\nndarray.tofile'])
def test_other_names_are_refused(tmp_path, name):
    (tmp_path / 'train').write_bytes(b'c' + name.encode() + b'\n.')
    with pytest.raises(ValueError, match='which was refused'):
        read_pickle(tmp_path / 'train', NAMES, 5)


def test_damaged_pickle(tmp_path):
    path = write_pickle(tmp_path / 'train', content())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r'expected a pickle but .*train is damaged'):
        read_pickle(path, NAMES, 5)


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ([1, 2], 'expected a pickled dict in .* but got list'),
        ({'data': PIXELS, 'coarse_labels': [1] * 5}, r"the keys data, coarse_labels, fine_labels .*'fine_labels'\]"),
        (content(data=PIXELS[:4]), r'shape \(5, 3072\) in .* but got uint8 \(4, 3072\)'),
        (content(data=PIXELS.astype('f4')), 'but got float32'),
        (content(data='text'), 'but got str'),
        (content(fine_labels=[1, 2, 3]), r'expected 5 integer fine_labels in .* but got int64 \(3,\)'),
        (content(coarse_labels=['a'] * 5), 'expected 5 integer coarse_labels'),
    ],
)
def test_pickle_of_other_content(tmp_path, value, message):
    with pytest.raises(ValueError, match=message):
        read_pickle(write_pickle(tmp_path / 'train', value), NAMES, 5)
