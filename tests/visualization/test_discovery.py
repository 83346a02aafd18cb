"""What was discovered, gathered from all processes."""

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from mmkd_ext.visualization import Assignment, Discovery, DiscoveryCollector

# --------------------------------------------------------------------------------------------------
# Discovery.


def discovery():
    rows = [
        Assignment(0, 'train', 2, 1, 0, 0.9, 0.5),
        Assignment(1, 'train', 2, 1, 3, 0.8, 0.4),
        Assignment(2, 'train', 3, 0, 2, 0.7, 0.3),
        Assignment(0, 'test', 0, 1, 0, 0.2, 0.95),
        Assignment(1, 'test', 3, 0, 2, 0.6, 0.85),
        Assignment(2, 'test', 1, 0, 2, 0.6, 0.65),
    ]
    return Discovery(rows, ('ant', 'bee', 'cat', 'dog'), 2, 2, {})


def test_names():
    assert discovery().splits == ['train', 'test']
    assert discovery().output_names == ['ant', 'bee', 'cluster 0', 'cluster 1']


def test_novel_split_is_judged_by_the_novel_head():
    view = discovery().view('train')
    assert view.is_task_aware
    assert view.outputs.tolist() == [3, 3, 2]
    assert view.confidence.tolist() == [0.9, 0.8, 0.7]
    assert view.matched_C.tolist() == [-1, -1, 3, 2]
    assert view.purity_C.tolist() == [0, 0, 1, 1]


def test_mixed_split_is_judged_among_all_classes():
    view = discovery().view('test')
    assert not view.is_task_aware
    assert view.positions.tolist() == [3, 4, 5]
    assert view.outputs.tolist() == [0, 2, 2]
    assert view.confidence.tolist() == [0.95, 0.85, 0.65]
    assert view.purity_C[0] == 1
    assert view.purity_C[2] == pytest.approx(0.5)
    np.testing.assert_array_equal(view.counts_TC.sum(axis=1), [1, 1, 0, 1])


# --------------------------------------------------------------------------------------------------
# Collector.


NAMES = ('ant', 'bee', 'cat')


def rows(size):
    return [Assignment(i, 'train' if i % 3 else 'test', i % 3, i % 2, i % 3, 0.5, 0.5) for i in range(size)]


def collect(size, indices, batch_size, max_points):
    collector, all_rows = DiscoveryCollector(size, max_points), rows(size)
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        collector.add([all_rows[i] for i in batch], np.array([[i, -i] for i in batch], dtype=np.float32))
    return collector.gather(NAMES, 1, 2)


def test_all_assignments_but_few_embeddings_are_kept():
    discovery = collect(100, range(100), 7, max_points=10)
    assert discovery.assignments == rows(100)
    for split in ('train', 'test'):
        positions, embeddings = discovery.embeddings[split]
        assert len(positions) == len(set(positions.tolist())) == 10
        assert {rows(100)[position].split for position in positions} == {split}
        np.testing.assert_array_equal(embeddings, np.stack([positions, -positions], axis=1))


def test_choice_does_not_depend_on_batches():
    first, second = (collect(90, range(90), batch_size, 8).embeddings['train'][0] for batch_size in (1, 64))
    np.testing.assert_array_equal(first, second)


def test_choice_is_spread_over_the_data():
    positions, _ = collect(3000, range(3000), 100, 200).embeddings['train']
    assert abs(np.mean(positions) - 1500) < 250


def test_memory_is_bounded():
    collector = DiscoveryCollector(1000, 10)
    collector.add(rows(1000), np.zeros((1000, 2), dtype=np.float32))
    assert sum(map(len, collector._candidates.values())) <= 40


def test_classes_without_names_are_numbered():
    collector = DiscoveryCollector(3, 2)
    collector.add(rows(3), np.zeros((3, 2)))
    assert collector.gather(None, 1, 2).class_names == ['0', '1', '2']


def _collect_in_process(rank, world_size, init_file, size, queue):
    torch.distributed.init_process_group('gloo', init_method=f'file://{init_file}', rank=rank, world_size=world_size)
    padded = [*range(size), *range(-size % world_size)]
    discovery = collect(size, padded[rank::world_size], 4, 9)
    queue.put((rank, discovery if discovery is None else (discovery.assignments, discovery.embeddings)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('size', [40, 41])
def test_two_processes_collect_what_one_does(tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    context = mp.get_context('fork')
    queue = context.SimpleQueue()
    arguments = (2, tmp_path / 'init', size, queue)
    processes = [context.Process(target=_collect_in_process, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    results = dict(queue.get() for _ in processes)
    for process in processes:
        process.join(30)

    expected = collect(size, range(size), 4, 9)
    assignments, embeddings = results[0]
    assert results[1] is None
    assert assignments == expected.assignments
    for split, (positions, vectors) in expected.embeddings.items():
        np.testing.assert_array_equal(embeddings[split][0], positions)
        np.testing.assert_array_equal(embeddings[split][1], vectors)
