"""TupleRelationLoss draws by the iteration, and keeps for an epoch what the samples' ids say, alike everywhere."""

import itertools

import pytest
import torch
from mmengine.registry import MODELS
from torch import distributed

from mmkd_ext.functional import keep_tuples, rkd_angle, rkd_distance


def build(**settings):
    return MODELS.build(dict(type='mmkd_ext.TupleRelationLoss', **settings))


def test_many_tuples_approach_rkd():
    student, teacher = torch.randn(8, 4), torch.randn(8, 5)
    loss = build(potential='angle', order=3, num_tuples=200_000, loss_weight=2.0)
    expected = 2 * rkd_angle(student, teacher, reduction='distinct')
    torch.testing.assert_close(loss(student, teacher, iteration=0), expected, rtol=0.02, atol=0)


@pytest.mark.parametrize(('potential', 'order'), [('distance', 2), ('analogy', 4), ('simplex', 5)])
def test_draws_follow_from_seed_and_iteration(potential, order):
    student, teacher = torch.randn(8, 4), torch.randn(8, 5)
    losses = [build(potential=potential, order=order, num_tuples=64, seed=seed) for seed in (7, 7, 8)]
    course = [losses[0](student, teacher, iteration=iteration) for iteration in range(6)]
    assert len({float(value) for value in course}) == 6
    assert losses[1](student, teacher, iteration=4) == course[4]  # without the steps before
    assert losses[2](student, teacher, iteration=4) not in course


def test_fewer_samples_than_a_tuple_has():
    student = torch.randn(3, 4, requires_grad=True)
    for extras in ({}, {'sample_ids': torch.arange(3), 'epoch': 1}):
        loss = build(potential='simplex', order=4, fraction=0.5 if extras else None)
        value = loss(student, torch.randn(3, 5), iteration=0, **extras)
        value.backward()
        assert value == 0


# Masks of an epoch

IDS = torch.tensor([70, 3, 91, 4, 15, 26])
PAIRS = torch.tensor(list(itertools.permutations(range(6), 2)))


def masked(student, teacher, ids=IDS, *, epoch=0, iteration=0, **settings):
    loss = build(potential='distance', order=2, fraction=0.4, num_tuples=100_000, **settings)
    return loss(student, teacher, sample_ids=ids, epoch=epoch, iteration=iteration)


@pytest.mark.parametrize('epoch', [0, 1])
def test_only_kept_tuples_take_part(epoch):
    student, teacher = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    kept = PAIRS[keep_tuples(IDS, PAIRS, fraction=0.4, epoch=epoch)]
    assert 0 < len(kept) < len(PAIRS)
    lengths = [torch.linalg.vector_norm(x[:, None] - x, dim=-1) for x in (student, teacher)]
    gaps = [x / (x.sum() / 30) for x in lengths]
    gap = (gaps[0] - gaps[1])[kept[:, 0], kept[:, 1]].abs()
    expected = torch.where(gap < 1, gap.square() / 2, gap - 0.5).mean()
    torch.testing.assert_close(masked(student, teacher, epoch=epoch), expected, rtol=0.03, atol=0)
    assert not torch.isclose(expected, rkd_distance(student, teacher, reduction='distinct'), rtol=0.05)


def test_a_pair_that_is_left_out_gets_no_gradient_all_epoch():
    two = PAIRS[~keep_tuples(IDS, PAIRS, fraction=0.4, epoch=3)][0]
    student = torch.randn(2, 3, requires_grad=True)
    for iteration in range(5):
        loss = masked(student, torch.randn(2, 4), IDS[two], epoch=3, iteration=iteration)
        assert loss == 0
    loss.backward()
    assert not student.grad.any()


def test_ids_that_are_missing():
    loss = build(fraction=0.5)
    with pytest.raises(RuntimeError, match=r'for fraction=0\.5 but .* no sample_idx; .* PackInputs\(meta_keys='):
        loss(torch.randn(6, 3), torch.randn(6, 3), iteration=0)
    with pytest.raises(ValueError, match=r'expected an id of each of 6 samples for fraction=0\.5 but got 5'):
        loss(torch.randn(6, 3), torch.randn(6, 3), iteration=0, sample_ids=torch.arange(5))


def _gather(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    part = slice(3 * rank, 3 * rank + 3)
    loss = masked(*(x[part] for x in both()), IDS[part], epoch=1, gather=True)
    torch.save(loss, folder / f'{rank}.pth')
    distributed.destroy_process_group()


def both():
    source = torch.Generator().manual_seed(2)
    return torch.randn(6, 3, generator=source), torch.randn(6, 4, generator=source)


def test_processes_meet_the_same_tuples(tmp_path):
    torch.multiprocessing.start_processes(_gather, (tmp_path,), nprocs=2, start_method='fork')
    expected = masked(*both(), epoch=1)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f'{rank}.pth'), expected, rtol=0, atol=0)


def test_settings_are_shown():
    printed = "potential='simplex', order=4, num_tuples=4096, fraction=None, delta=1.0, seed=0"
    assert printed in repr(build())


def test_bad_setting():
    for setting, value in dict(potential='volume', order=3, num_tuples=0, delta=-1.0, seed=-1, fraction=0.0).items():
        with pytest.raises(ValueError, match=f'^TupleRelationLoss: expected {setting} .*{value}'):
            build(**{'potential': 'analogy', setting: value})
