"""The promises of CUR and SUR, on labels that make them hard to keep."""

import copy
import time
import tracemalloc

import numpy as np
import pytest
from mmengine.dataset import DefaultSampler

from mmkd_ext.samplers.cur import GroupUniformBatchSampler


def build(ids, batch_size, k, *, rank=0, world_size=1, seed=3, epoch=0, **kwargs):
    sampler = DefaultSampler(range(len(ids)), seed=seed)
    sampler.rank, sampler.world_size = rank, world_size
    sampler.set_epoch(epoch)
    batches = GroupUniformBatchSampler(sampler, batch_size, k, **kwargs)
    batches._set_groups(np.asarray(ids))
    return batches


def steps(ids, batch_size, k, world_size, epoch=0, **kwargs):
    """Batches of all processes, (S, W, b)."""
    ranks = [build(ids, batch_size, k, rank=rank, world_size=world_size, **kwargs) for rank in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1
    plans = [rank.plan(epoch) for rank in ranks]
    assert {plan.shape for plan in plans} == {(len(ranks[0]), batch_size)}
    return np.stack(plans, axis=1)


def imbalanced(num_samples, num_groups, seed=0):
    """Shuffled group ids; sizes fall geometrically down to one, and the first group has the rest."""
    sizes = np.maximum(np.geomspace(num_samples / num_groups * 4, 0.6, num_groups), 1).astype(int)
    sizes[0] += num_samples - sizes.sum()
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(num_groups), sizes))


def assert_m_groups_of_k(ids, rows, k):
    """In each row, every group that is there has exactly k samples."""
    blocks = np.sort(ids[rows], axis=1).reshape(len(rows), -1, k)
    assert (blocks == blocks[:, :, :1]).all()
    assert (np.diff(blocks[:, :, 0]) > 0).all()


def groups_per_row(ids, rows):
    """Samples of each group in each row, (rows, groups)."""
    return np.stack([np.bincount(row, minlength=ids.max() + 1) for row in ids[rows]])


def assert_disjoint(ids, plan_SWb, k):
    """No sample on two processes; none twice on one, unless its group is smaller than k."""
    size, (num_steps, world_size, _) = np.bincount(ids), plan_SWb.shape
    in_step = plan_SWb + len(ids) * np.arange(num_steps)[:, None, None]
    samples, times = np.unique(in_step, return_counts=True)
    assert (size[ids[samples[times > 1] % len(ids)]] < k).all()
    on_process = in_step * world_size + np.arange(world_size)[:, None]
    assert len(np.unique(on_process)) == len(samples)


@pytest.mark.parametrize('semantics', ['global', 'local'])
@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_each_batch_is_m_groups_of_k(semantics, world_size):
    ids = imbalanced(2000, 40)
    plan = steps(ids, 16, 4, world_size, semantics=semantics)
    assert len(plan) == 2000 // (16 * world_size)
    assert_m_groups_of_k(ids, plan.reshape(-1, 16), 4)
    assert_disjoint(ids, plan, 4)
    if semantics == 'global':
        assert_m_groups_of_k(ids, plan.reshape(len(plan), -1), 4)


def test_global_steps_do_not_depend_on_the_number_of_processes():
    ids = imbalanced(3000, 60)
    one = steps(ids, 48, 4, 1).reshape(-1, 48)
    for world_size in (2, 4, 6, 12):
        assert np.array_equal(steps(ids, 48 // world_size, 4, world_size).reshape(-1, 48), one)


def test_a_group_may_be_cut_between_processes_in_global_semantics():
    ids = np.repeat(np.arange(10), 20)
    plan = steps(ids, 2, 4, 6)  # 3 groups of 4 in 12 samples
    assert_m_groups_of_k(ids, plan.reshape(-1, 12), 4)
    assert_disjoint(ids, plan, 4)


def test_local_semantics_where_there_are_fewer_groups_than_a_step_has():
    ids = imbalanced(3000, 10)  # sizes down to 1; 4 processes with 7 of 10 groups
    sizes = np.bincount(ids)
    plan = steps(ids, 14, 2, 4, semantics='local')
    assert_m_groups_of_k(ids, plan.reshape(-1, 14), 2)
    assert_disjoint(ids, plan, 2)
    per_step = groups_per_row(ids, plan.reshape(-1, 56)) // 2
    assert (per_step <= np.maximum(sizes // 2, 1)).all()  # no more than a group can give


def test_global_semantics_where_there_are_fewer_groups_than_a_step_has():
    ids = np.repeat(np.arange(10), 50)
    plan = steps(ids, 16, 2, 4)
    per_step = groups_per_row(ids, plan.reshape(-1, 64)) // 2
    assert set(np.unique(per_step)) == {3, 4}  # 32 draws from 10 groups, as equal as they can be
    assert_disjoint(ids, plan, 2)


@pytest.mark.parametrize('semantics', ['global', 'local'])
def test_the_prior_over_groups_becomes_uniform_and_so_does_coverage_within_a_group(semantics):
    ids = imbalanced(5000, 30)
    plan = build(ids, 20, 4, semantics=semantics).plan(0)
    drawn = np.bincount(ids[plan].ravel(), minlength=30) // 4
    assert drawn.sum() == 1250
    assert set(drawn) == {41, 42}  # 1250 / 30, whatever the sizes
    times = np.bincount(plan.ravel(), minlength=5000)
    for group in range(30):
        of_group = times[ids == group]
        if len(of_group) >= 4:
            assert of_group.max() - of_group.min() <= 1


def test_on_balanced_data_an_epoch_is_one_pass():
    ids = np.random.default_rng(0).permutation(np.repeat(np.arange(25), 40))
    times = np.bincount(build(ids, 20, 4).plan(0).ravel(), minlength=1000)
    assert (times == 1).all()


@pytest.mark.parametrize('size', [1, 2, 3])
def test_a_group_smaller_than_k_repeats_its_own_equally_often(size):
    ids = np.concatenate([np.repeat(np.arange(1, 5), 20), np.zeros(size, dtype=int)])
    plan = build(ids, 8, 4).plan(0)
    small = [row[ids[row] == 0] for row in plan if (ids[row] == 0).any()]
    assert small
    for samples in small:
        times = np.bincount(samples - 80, minlength=size)
        assert times.sum() == 4
        assert times.max() - times.min() <= 1


def test_samples_without_group_and_groups_without_samples_never_come():
    ids = np.array([-1, 7, 3, 7, -1, 3, 7, 3, 9, 9] * 4)
    plan = build(ids, 4, 2).plan(0)
    assert len(plan) == 32 // 4
    assert set(ids[plan].ravel()) == {3, 7, 9}


def test_share_of_pairs_of_one_group_is_k_minus_1_over_b_minus_1():
    ids = np.random.default_rng(0).permutation(np.repeat(np.arange(100), 50))
    for b, k in ((64, 4), (64, 8), (40, 4)):
        labels = ids[build(ids, b, k).plan(0)]
        same = (labels[:, :, None] == labels[:, None]).sum((1, 2)) - b
        assert same == pytest.approx(b * (b - 1) * (k - 1) / (b - 1))
    assert pytest.approx(0.048, abs=5e-4) == (4 - 1) / (64 - 1)  # CCKD's figure for CIFAR-100


def test_order_depends_on_seed_and_epoch_alone():
    ids = imbalanced(1000, 20)
    first = list(build(ids, 8, 2, epoch=1))
    assert list(build(ids, 8, 2, epoch=1)) == first
    assert list(build(ids, 8, 2, epoch=2)) != first
    assert list(build(ids, 8, 2, seed=5, epoch=1)) != first
    assert list(build(ids, 8, 2, seed=2, epoch=2)) != first  # not of seed + epoch


def test_every_process_sees_every_group():
    ids = np.repeat(np.arange(40), 30)
    for semantics in ('global', 'local'):
        plan = steps(ids, 8, 2, 4, semantics=semantics, num_batches=400)
        times = np.stack([np.bincount(ids[plan[:, rank]].ravel(), minlength=40) for rank in range(4)])
        assert times.min() > 0
        centre = (times * np.arange(40)).sum(axis=1) / times.sum(axis=1)
        assert np.abs(centre - 19.5).max() < 4  # no process has the first groups of the list


def test_length_may_be_chosen():
    ids = np.repeat(np.arange(4), 5)
    assert build(ids, 4, 2, num_batches=50).plan(0).shape == (50, 4)
    assert len(build(ids, 40, 10)) == 1  # at least one batch, also of fewer samples than it holds


@pytest.mark.parametrize(('semantics', 'batch_size'), [('global', 32), ('local', 64)])  # 512 and 1024 groups in a step
def test_64_processes_on_an_imbalanced_list_of_1_2_million(semantics, batch_size):
    """All processes, all steps, three epochs; they share the plan of all, which two of them also make themselves."""
    ids, world_size, k = imbalanced(1_200_000, 1000), 64, 4
    size = np.bincount(ids)
    assert (size.min(), size.argmax()) == (1, 0)
    first, last = (build(ids, batch_size, k, rank=rank, world_size=world_size, semantics=semantics) for rank in (0, 63))
    plans = []
    for epoch in range(3):
        plan_of_all = first.plan_of_all(epoch)
        if epoch == 0:
            assert np.array_equal(last.plan(epoch), plan_of_all[:, 63])
        ranks = [copy.copy(first) for _ in range(world_size)]
        for rank, batches in enumerate(ranks):
            batches.sampler = copy.copy(first.sampler)
            batches.sampler.rank, batches.plan_of_all = rank, lambda epoch, plan=plan_of_all: plan
        plan = np.stack([batches.plan(epoch) for batches in ranks], axis=1)
        assert plan.shape == (1_200_000 // (world_size * batch_size), world_size, batch_size)
        assert {len(batches) for batches in ranks} == {len(plan)}
        assert_disjoint(ids, plan, k)
        assert_m_groups_of_k(ids, plan.reshape(-1, batch_size), k)
        if semantics == 'global':
            assert_m_groups_of_k(ids, plan.reshape(len(plan), -1), k)
        plans.append(plan)
    assert not any(np.array_equal(plans[0], later) for later in plans[1:])


def test_cost_at_1_2_million_samples_and_1000_groups():
    """Bars: under 1 ms per batch, under 100 MB, under 5 s to start."""
    ids = imbalanced(1_200_000, 1000)
    began = time.process_time()
    batches = build(ids, 64, 4)
    iterator = iter(batches)
    next(iterator)
    assert time.process_time() - began < 5
    began = time.process_time()
    num_batches = sum(1 for _ in batches)
    assert num_batches == 18_750
    assert (time.process_time() - began) / num_batches < 1e-3
    tracemalloc.start()
    next(iter(build(ids, 64, 4)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_errors():
    ids = np.repeat(np.arange(10), 6)
    with pytest.raises(ValueError, match=r"semantics .*got 'ranks'"):
        build(ids, 8, 4, semantics='ranks')
    with pytest.raises(ValueError, match=r'30 samples .*samples_per_group .*got 4'):
        build(ids, 10, 4, world_size=3)
    with pytest.raises(ValueError, match=r'10 samples of a batch .*divisor of 10'):
        build(ids, 10, 4, world_size=2, semantics='local')
    with pytest.raises(ValueError, match=r'samples_per_group .*got 0'):
        build(ids, 8, 0)
    with pytest.raises(ValueError, match=r'num_batches .*got 0'):
        build(ids, 8, 4, num_batches=0)
    with pytest.raises(ValueError, match=r'16 groups of 4 .*4 processes .*10 groups .* 10'):
        build(ids, 16, 4, world_size=4)
    with pytest.raises(ValueError, match=r'12 groups of 2 .* 10 \(local'):
        build(ids, 24, 2, semantics='local')
    with pytest.raises(ValueError, match=r'samples_per_group, 4, .*1 groups .*got 2'):
        build(np.concatenate([ids, [10]]), 2, 4, world_size=6)
    with pytest.raises(ValueError, match=r'the 0 groups .* 0'):
        build(np.full(9, -1), 8, 4)
