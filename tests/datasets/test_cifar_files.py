import os
import pickle

import numpy as np
import pytest

from mmkd_ext.datasets.cifar import read_binary, read_pickle

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
