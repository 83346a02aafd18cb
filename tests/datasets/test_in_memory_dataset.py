import pickle

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.registry import FUNCTIONS
from mmengine.structures import BaseDataElement
from torch.utils.data import DataLoader, default_collate

from mmkd_ext.datasets import ArrayDataset, InMemoryDataset, NovelClassSplit, collate_batch
from mmkd_ext.engine.runner import ResumableBatchSampler
from mmkd_ext.registry import DATASETS
from mmkd_ext.samplers import QuotaBatchSampler

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 5, 3), dtype=np.uint8)


@DATASETS.register_module(force=True)
class TinyImages(ArrayDataset):
    METAINFO = {'classes': ('a', 'b', 'c')}  # noqa: RUF012

    def load_arrays(self):
        return IMAGES, np.arange(30) % 3


def pack(info):
    sample = BaseDataElement(metainfo={'sample_idx': info['sample_idx']}, gt_label=torch.tensor([info['gt_label']]))
    return {'inputs': torch.from_numpy(info['img']).permute(2, 0, 1).contiguous(), 'data_samples': sample}


def split(pipeline=pack, **kwargs):
    return NovelClassSplit(TinyImages(pipeline=[pipeline]), known=2, **kwargs)


def test_a_batch_is_the_samples_of_the_wrapped_data_set():
    wrapped = split()
    dataset = InMemoryDataset(wrapped)
    loader = DataLoader(dataset, batch_sampler=[[3, 2, 3], [29]], collate_fn=collate_batch)
    for indices, batch in zip([[3, 2, 3], [29]], loader, strict=True):
        assert torch.equal(batch['inputs'], torch.stack([wrapped[index]['inputs'] for index in indices]))
        assert batch['inputs'].dtype == torch.uint8
        for index, sample in zip(indices, batch['data_samples'], strict=True):
            assert sample.sample_idx == index
            assert torch.equal(sample.gt_label, wrapped[index]['data_samples'].gt_label)
    assert torch.equal(dataset[5]['inputs'], wrapped[5]['inputs'])


def test_labels_stay_hidden():
    dataset = InMemoryDataset(split())
    labels = [int(sample.gt_label) for sample in dataset.__getitems__(range(6))['data_samples']]
    assert labels == [0, 1, -1, 0, 1, -1]
    assert dataset.get_gt_labels()[:6].tolist() == labels


def test_everything_else_is_that_of_the_wrapped_data_set():
    wrapped = split()
    dataset = pickle.loads(pickle.dumps(InMemoryDataset(wrapped)))
    assert len(dataset) == len(wrapped)
    assert dataset.metainfo == wrapped.metainfo
    np.testing.assert_array_equal(dataset.labelled, wrapped.labelled)
    with pytest.raises(AttributeError):
        _ = dataset.nothing


def test_batches_by_quota():
    dataset = InMemoryDataset(split())
    batches = QuotaBatchSampler(DefaultSampler(dataset, seed=0), batch_size=5, num_unlabelled=2)
    for batch in DataLoader(dataset, batch_sampler=batches, collate_fn=collate_batch):
        assert [int(sample.gt_label) < 0 for sample in batch['data_samples']] == [False] * 3 + [True] * 2


def test_resumable_batches_are_read_without_seeding_each_sample(monkeypatch):
    monkeypatch.setattr('mmkd_ext.engine.runner.seed_cpu', None)
    dataset = InMemoryDataset(split())
    batches = ResumableBatchSampler([[4, 0], [1]], seed=0)
    found = [batch['inputs'] for batch in DataLoader(dataset, batch_sampler=batches, collate_fn=collate_batch)]
    assert torch.equal(torch.cat(found), dataset.images[[4, 0, 1]])


def test_collating_in_a_config():
    collate = FUNCTIONS.get('mmkd_ext.collate_batch')
    assert collate is collate_batch
    batch = {'inputs': torch.zeros(2)}
    assert collate(batch) is batch
    samples = [{'inputs': torch.full((1,), value)} for value in (1.0, 2.0)]
    assert torch.equal(collate(samples)['inputs'], default_collate(samples)['inputs'])


def test_config_of_a_wrapped_data_set():
    config = dict(type='mmkd_ext.NovelClassSplit', known=2, dataset=dict(type='mmkd_ext.TinyImages', pipeline=[pack]))
    dataset = DATASETS.build(dict(type='mmkd_ext.InMemoryDataset', dataset=config, device='cpu'))
    assert dataset.images.shape == (30, 3, 4, 5)
    assert dataset.device == torch.device('cpu')


def test_device_of_the_images(monkeypatch):
    dataset = InMemoryDataset(split(), device='meta')
    assert dataset.__getitems__([1, 2])['inputs'].device.type == 'meta'
    monkeypatch.setattr('mmkd_ext.datasets.in_memory_dataset.get_worker_info', object)
    with pytest.raises(RuntimeError, match=r'in the main process.* on meta, but got a worker; set num_workers=0'):
        dataset.__getitems__([1, 2])


def test_chance_in_the_pipeline():
    def noisy(info):
        return pack({**info, 'img': np.random.randint(0, 256, (4, 5, 3), dtype=np.uint8)})  # noqa: NPY002

    with pytest.raises(ValueError, match='expected a pipeline without chance'):
        InMemoryDataset(split(noisy))


def test_images_of_several_shapes():
    def cropped(info):
        return pack({**info, 'img': info['img'][: 2 + info['sample_idx'] % 2]})

    with pytest.raises(ValueError, match=r'one shape but got \[\(3, 2, 5\), \(3, 3, 5\)\]'):
        InMemoryDataset(split(cropped))


@pytest.mark.parametrize(
    ('change', 'found'),
    [
        (lambda sample: {'inputs': sample['inputs'].float()}, r'torch.float32 \(3, 4, 5\)'),
        (lambda sample: {'inputs': [sample['inputs']] * 2}, 'list'),
        (lambda sample: {}, 'NoneType'),
    ],
)
def test_samples_that_are_no_images(change, found):
    with pytest.raises(TypeError, match=f'expected uint8 images .* got {found}; let the pipeline be'):
        InMemoryDataset(split(lambda info: change(pack(info))))
