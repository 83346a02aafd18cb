import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmengine.registry import METRICS as ROOT_METRICS

from mmkd_ext.evaluation import RetrievalMetric, read_embedding
from mmkd_ext.scores.retrieval import retrieval_scores


def make_samples(size=37, split=None, dtype=torch.float32):
    """Classes of about five; the embeddings of a batch are views into one tensor, as a model returns them."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(size // 5, (size,), generator=generator)
    embeddings = torch.randn(size // 5, 6, generator=generator)[labels] + torch.randn(size, 6, generator=generator)
    embeddings = (embeddings * torch.linspace(0.2, 3, size)[:, None]).to(dtype)
    samples = [{'embedding': x, 'gt_label': y[None]} for x, y in zip(embeddings, labels, strict=True)]
    return [{**sample, 'split_name': split(i)} for i, sample in enumerate(samples)] if split else samples


def stacked(samples):
    return torch.stack([s['embedding'] for s in samples]), torch.cat([s['gt_label'] for s in samples])


def evaluate(samples, batch_size=8, size=None, **kwargs):
    metric = RetrievalMetric(**kwargs)
    for start in range(0, len(samples), batch_size):
        metric.process(None, samples[start : start + batch_size])
    return metric.evaluate(len(samples) if size is None else size)


def in_percent(scores):
    return {f'retrieval/{name}': pytest.approx(100 * score) for name, score in scores.items()}


def test_numbers_are_those_of_the_function_in_percent():
    samples = make_samples()
    assert evaluate(samples) == in_percent(retrieval_scores(*stacked(samples)))
    assert evaluate(samples, topk=(1, 10)) == in_percent(retrieval_scores(*stacked(samples), ks=(1, 10)))


def test_recall_by_hand():
    embeddings, labels = torch.tensor([[0.0], [1.0], [3.0], [7.0]]), [[0], [0], [1], [0]]
    samples = [{'embedding': x, 'gt_label': torch.tensor(y)} for x, y in zip(embeddings, labels, strict=True)]
    metrics = evaluate(samples, topk=(1, 2))
    assert (metrics['retrieval/recall@1'], metrics['retrieval/recall@2']) == (50, 75)


def test_cosine_similarity_decides_between_normalized_embeddings():
    samples = make_samples()
    embeddings, labels = stacked(samples)
    unit = torch.nn.functional.normalize(embeddings)
    assert evaluate(samples, normalize=True) == in_percent(retrieval_scores(unit, labels))
    assert evaluate(samples, normalize=True) != evaluate(samples)


def test_queries_are_searched_for_in_the_gallery():
    samples = make_samples(split=lambda i: 'gallery' if i % 3 else 'query')
    queries = [s for s in samples if s['split_name'] == 'query']
    gallery = [s for s in samples if s['split_name'] == 'gallery']
    expected = retrieval_scores(*stacked(queries), (1, 2, 4, 8), *stacked(gallery))
    assert evaluate(samples) == in_percent(expected)


def test_other_splits_are_one_set():
    samples = make_samples(split=lambda i: 'test')
    assert evaluate(samples) == in_percent(retrieval_scores(*stacked(samples)))


@pytest.mark.parametrize('found', [('query', 'query'), ('gallery', 'gallery'), ('query', 'test')])
def test_half_a_split_is_refused(found):
    with pytest.raises(ValueError, match="RetrievalMetric: expected split_name 'query' and 'gallery', or neither"):
        evaluate(make_samples(split=lambda i: found[i % 2]))


def test_numbers_do_not_depend_on_batches():
    assert evaluate(make_samples(), batch_size=5) == evaluate(make_samples(), batch_size=37)


def _evaluate_in_process(rank, world_size, init_file, samples, device, queue):
    torch.distributed.init_process_group('gloo', init_method=f'file://{init_file}', rank=rank, world_size=world_size)
    # As DefaultSampler does: in turn, padded with the first samples.
    padded = samples + samples[: -len(samples) % world_size]
    metrics = evaluate(padded[rank::world_size], batch_size=4, size=len(samples), collect_device=device)
    queue.put((rank, metrics))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(('size', 'device'), [(36, 'gpu'), (37, 'gpu'), (37, 'cpu')])
def test_two_processes_give_the_numbers_of_one(tmp_path, size, device):
    """Were the sample that fills up the last round kept, its duplicate would be its nearest neighbour."""
    samples = make_samples(size=size)
    context = mp.get_context('fork')
    queue = context.SimpleQueue()
    arguments = (2, tmp_path / 'init', samples, device, queue)
    processes = [context.Process(target=_evaluate_in_process, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    results = dict(queue.get() for _ in processes)
    for process in processes:
        process.join(30)
    assert results[0] == results[1] == evaluate(samples)


def test_a_sample_is_read_on_its_own():
    sample = read_embedding(make_samples(dtype=torch.bfloat16)[0], 'test')
    assert sample.embedding.dtype == np.float32
    assert sample.embedding.base is None
    assert sample.split is None


def test_built_by_name():
    metric = ROOT_METRICS.build(dict(type='mmkd_ext.RetrievalMetric', topk=(1, 10, 100), prefix='sop'))
    metric.process(None, make_samples())
    assert 'sop/recall@100' in metric.evaluate(37)


@pytest.mark.parametrize('topk', [(), (0, 1)])
def test_bad_topk(topk):
    with pytest.raises(ValueError, match='RetrievalMetric: expected topk of numbers >= 1 but got'):
        RetrievalMetric(topk=topk)


@pytest.mark.parametrize('topk', [5, (1.5,), '12'])
def test_topk_of_another_type(topk):
    with pytest.raises(TypeError, match=r'RetrievalMetric: expected topk of integers but got .*; write for example'):
        RetrievalMetric(topk=topk)


def test_no_samples():
    with pytest.raises(ValueError, match='RetrievalMetric: expected samples but got none'):
        RetrievalMetric().evaluate(0)


@pytest.mark.parametrize('field', ['embedding', 'gt_label'])
def test_missing_field_is_named(field):
    sample = {key: value for key, value in make_samples()[0].items() if key != field}
    with pytest.raises(KeyError, match=f"RetrievalMetric: expected predicted samples with '{field}'"):
        RetrievalMetric().process(None, [sample])


def test_maps_are_refused():
    with pytest.raises(ValueError, match=r'expected an embedding of shape \(D,\) but got \(6, 7, 7\); pool maps'):
        read_embedding({'embedding': torch.ones(6, 7, 7), 'gt_label': torch.tensor([0])}, 'test')
