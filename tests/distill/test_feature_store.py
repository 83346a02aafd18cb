import json
import os
import shutil
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmkd_ext.distill import FeatureStore, Layout
from mmkd_ext.distill import cache as feature_store

NUM_SAMPLES = 6


def features(samples, dtype=torch.float32):
    """Features that tell sample and tap apart."""
    base = torch.tensor(samples).view(-1, 1)
    return {'map': (base + torch.arange(8) / 8).view(-1, 2, 2, 2).to(dtype), 'logits': -base.expand(-1, 3).double()}


LAYOUT = Layout.of(features([0]), (1, 8, 8), 'cpu')


def store_in(folder, layout=LAYOUT, num_samples=NUM_SAMPLES, **identity):
    store = FeatureStore(folder, num_samples, {'teacher': 'a', 'view': 'b', **identity})
    if layout:
        store.set_layout(layout)
    return store


def fill(store, samples):
    return store.write(samples, store.layout.pack(features(samples)))


# Layout


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_rows_give_back_every_bit(dtype):
    batch = {'a': torch.randn(5, 2, 3).to(dtype), 'b': torch.randn(5).to(dtype)}
    batch['a'][0, 0, 0], batch['a'][1, 1, 1], batch['b'][2] = float('nan'), -0.0, float('inf')
    layout = Layout.of(batch, (3,), 'cpu')
    rows = layout.pack(batch)
    assert rows.shape == (5, 7 * dtype.itemsize)
    assert rows.dtype == np.uint8
    for tap, feature in layout.unpack(rows).items():
        assert feature.dtype == dtype
        assert feature.shape == batch[tap].shape
        assert torch.equal(feature.view(torch.uint8), batch[tap].view(torch.uint8))


def test_rows_do_not_need_contiguous_features():
    batch = {'a': torch.randn(3, 4).T}
    layout = Layout.of(batch, (3,), 'cpu')
    assert torch.equal(layout.unpack(layout.pack(batch))['a'], batch['a'])


# Reading and writing


def test_what_was_written_is_read_by_another_store(tmp_path):
    fill(store_in(tmp_path), [4, 1])
    rows, is_stored = store_in(tmp_path).read([1, 0, 4])
    assert is_stored.tolist() == [True, False, True]
    for tap, feature in LAYOUT.unpack(rows[is_stored]).items():
        assert torch.equal(feature, features([1, 4])[tap])


def test_first_row_of_a_sample_stays(tmp_path):
    store = store_in(tmp_path)
    first = fill(store, [2])
    again = store.write([2, 2, 3], LAYOUT.pack(features([5, 5, 3])))
    assert np.array_equal(again[0], first[0])
    assert np.array_equal(again[1], first[0])
    assert np.array_equal(again[2], LAYOUT.pack(features([3]))[0])


def test_files_are_plain_arrays_and_text(tmp_path):
    fill(store_in(tmp_path), [3])
    rows = np.load(tmp_path / 'rows.npy', allow_pickle=False)
    checksums = np.load(tmp_path / 'checksums.npy', allow_pickle=False)
    assert rows.shape == (NUM_SAMPLES, 8 * 4 + 3 * 8)
    assert np.flatnonzero(checksums).tolist() == [3]
    assert int(checksums[3]) == 2**32 + zlib.crc32(rows[3].tobytes())
    meta = json.loads((tmp_path / 'meta.json').read_text())
    assert meta['identity'] == {'teacher': 'a', 'view': 'b'}
    assert meta['layout']['taps'] == ['logits', 'map']


def test_nothing_is_made_before_the_layout_is_known(tmp_path):
    store = store_in(tmp_path / 'cache', layout=None)
    assert store.read([0, 1])[1].tolist() == [False, False]
    assert not (tmp_path / 'cache').exists()


# Crashes


def test_half_written_row_is_missing_and_is_written_again(tmp_path):
    fill(store_in(tmp_path), [1, 2])
    rows = np.load(tmp_path / 'rows.npy', mmap_mode='r+')
    rows[1, 5:] = 0
    rows.flush()
    store = store_in(tmp_path)
    assert store.read([1, 2])[1].tolist() == [False, True]
    fill(store, [1])
    assert store.read([1, 2])[1].tolist() == [True, True]


def test_row_of_zeros_is_told_from_an_empty_one(tmp_path):
    store = store_in(tmp_path)
    store.write([0], np.zeros((1, sum(LAYOUT.sizes)), np.uint8))
    assert store.read([0, 1])[1].tolist() == [True, False]


@pytest.mark.parametrize('left_over', ['rows.npy', 'checksums.npy', 'meta.json.partial'])
def test_folder_without_its_last_file_is_empty(tmp_path, left_over):
    fill(store_in(tmp_path / 'whole'), [1])
    (tmp_path / 'half').mkdir()
    (tmp_path / 'half' / left_over).write_bytes(b'\x93NUMPY')
    store = store_in(tmp_path / 'half')
    assert not store.read(list(range(NUM_SAMPLES)))[1].any()
    fill(store, [1])
    assert store_in(tmp_path / 'half').read([1])[1].all()


def cut(path):
    with path.open('r+b') as file:
        file.truncate(path.stat().st_size // 2)


def pickled(path):
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


def test_rows_that_were_cut_off_are_missing(tmp_path):
    fill(store_in(tmp_path), [0, 5])
    cut(tmp_path / 'rows.npy')
    store = store_in(tmp_path)
    assert store.read([0, 5])[1].tolist() == [True, False]
    fill(store, [5])
    assert store.read([0, 5])[1].tolist() == [True, True]


@pytest.mark.parametrize(
    ('name', 'damage'),
    [
        ('rows.npy', os.remove),
        ('rows.npy', pickled),
        ('checksums.npy', os.remove),
        ('checksums.npy', pickled),
        ('checksums.npy', cut),
        ('meta.json', cut),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, damage):
    fill(store_in(tmp_path), [1])
    damage(tmp_path / name)
    with pytest.raises(ValueError, match=rf'those in {tmp_path} are damaged \(.*\); delete the folder'):
        store_in(tmp_path)


# Mismatch


@pytest.mark.parametrize('name', ['teacher', 'view'])
def test_features_of_something_else_are_refused(tmp_path, name):
    store_in(tmp_path)
    with pytest.raises(ValueError, match=rf'are of another {name} \(., now z\); delete the folder to fill it anew'):
        store_in(tmp_path, **{name: 'z'})


def test_another_number_of_samples_is_refused(tmp_path):
    store_in(tmp_path)
    with pytest.raises(ValueError, match=r'another number of samples \(6, now 7\)'):
        store_in(tmp_path, num_samples=7)


@pytest.mark.parametrize(
    ('layout', 'what'),
    [
        (Layout.of(features([0], torch.bfloat16), (1, 8, 8), 'cpu'), 'dtypes'),
        (Layout.of(features([0]), (1, 8, 9), 'cpu'), 'input_shape'),
        (Layout.of(features([0]), (1, 8, 8), 'cpu, autocast bfloat16'), 'precision'),
        (Layout.of({'map': torch.zeros(1, 4), 'logits': torch.zeros(1, 3)}, (1, 8, 8), 'cpu'), 'shapes'),
    ],
)
def test_another_layout_is_refused(tmp_path, layout, what):
    store_in(tmp_path)
    with pytest.raises(ValueError, match=f'another {what} of the features'):
        store_in(tmp_path, layout=layout)


def test_full_disk_is_found_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: SimpleNamespace(free=100))
    with pytest.raises(OSError, match='of free space for 6 samples'):
        store_in(tmp_path)
    assert not (tmp_path / 'rows.npy').exists()


# Several processes


def _write_all(rank, folder):
    torch.set_num_threads(1)
    store = FeatureStore(folder, 200, {})
    samples = np.random.default_rng(rank).permutation(200)
    store.set_layout(Layout.of({'a': torch.zeros(1, 512)}, (1,), 'cpu'))
    seen = {}
    for _ in range(2):
        for chunk in np.split(samples, 20):
            batch = {'a': torch.full((len(chunk), 512), float(rank))}
            rows = store.write(chunk.tolist(), store.layout.pack(batch))
            for sample, row in zip(chunk.tolist(), rows, strict=True):
                assert len(np.unique(row.view(np.float32))) == 1
                assert seen.setdefault(sample, row[3]) == row[3]
    np.save(folder / f'seen_{rank}.npy', np.array([seen[sample] for sample in range(200)]))


def test_processes_agree_on_every_sample(tmp_path):
    torch.multiprocessing.start_processes(_write_all, (tmp_path,), nprocs=3, start_method='fork')
    seen = [np.load(tmp_path / f'seen_{rank}.npy') for rank in range(3)]
    assert np.array_equal(seen[0], seen[1])
    assert np.array_equal(seen[0], seen[2])


def test_module_needs_no_locks_to_be_imported():
    assert not hasattr(feature_store, 'fcntl')
