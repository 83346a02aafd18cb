import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from torch.utils.data import BatchSampler, DataLoader

from mmkd_ext.engine.runner import ResumableBatchSampler, SeededBatch


def draw():
    return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002


class Draws(torch.utils.data.Dataset):
    def __init__(self, num_drawn=1):
        self.num_drawn = num_drawn

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.tensor([index, *[number for _ in range(self.num_drawn) for number in draw()][:3]])


def sampler(**kwargs):
    inner = BatchSampler(DefaultSampler(Draws(), shuffle=True, seed=1), batch_size=3, drop_last=False)
    return ResumableBatchSampler(inner, **{'seed': 1, **kwargs})


def load(batches, num_workers=0, dataset=None, **options):
    loader = DataLoader(dataset or Draws(), batch_sampler=batches, num_workers=num_workers, **options)
    return torch.stack(list(loader))


def test_each_sample_has_numbers_of_its_own_and_the_process_keeps_its_state():
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    values = load(sampler(), generator=torch.Generator())[..., 1:]
    assert torch.rand(()) == expected
    assert values.unique().numel() == values.numel()


@pytest.mark.parametrize('persistent_workers', [False, True])
def test_workers_load_what_the_main_process_loads(persistent_workers):
    assert torch.equal(load(sampler()), load(sampler(), num_workers=2, persistent_workers=persistent_workers))


def test_a_sample_does_not_depend_on_how_much_others_draw():
    assert torch.equal(load(sampler()), load(sampler(), dataset=Draws(num_drawn=5)))


@pytest.mark.parametrize('start', [0, 1, 3, 4])
@pytest.mark.parametrize('num_workers', [0, 2])
def test_start_leaves_out_batches_once(start, num_workers):
    batches = sampler()
    whole = load(batches)
    batches.start = start
    loader = DataLoader(Draws(), batch_sampler=batches, num_workers=num_workers)
    rest = list(loader)
    assert len(rest) == 4 - start
    assert all(torch.equal(batch, expected) for batch, expected in zip(rest, whole[start:], strict=True))
    assert len(list(loader)) == len(loader) == 4


def test_batches_that_are_left_out_are_not_loaded():
    class Counting(Draws):
        loaded = 0

        def __getitem__(self, index):
            Counting.loaded += 1
            return super().__getitem__(index)

    batches = sampler()
    batches.start = 3
    load(batches, dataset=Counting())
    assert Counting.loaded == 3


@pytest.mark.parametrize('other', [{'seed': 2}, {'rank': 1}, {'epoch': 1}])
def test_seed_process_and_epoch_change_the_numbers(other):
    batches = sampler(**{name: value for name, value in other.items() if name != 'epoch'})
    batches.epoch = other.get('epoch', 0)
    assert not (load(sampler())[..., 1:] == load(batches)[..., 1:]).any()


def test_other_attributes_are_those_of_the_wrapped_sampler():
    batches = sampler()
    assert batches.batch_size == 3
    assert batches.sampler.seed == 1
    with pytest.raises(AttributeError, match='unknown'):
        batches.unknown  # noqa: B018
    assert len(pickle.loads(pickle.dumps(batches))) == 4


def test_an_error_of_the_data_set_gives_the_state_back():
    random.seed(5)
    expected = random.random()
    random.seed(5)
    with pytest.raises(ZeroDivisionError):
        [1 / 0 for _ in SeededBatch([1, 2], (0,))]
    assert random.random() == expected
    assert len(SeededBatch([1, 2], (0,))) == 2


def test_indices_without_seeding():
    before = torch.get_rng_state()
    assert np.asarray(SeededBatch([5, 2], (0, 1)), dtype=np.int64).tolist() == [5, 2]
    assert torch.equal(torch.get_rng_state(), before)
