"""The metric of discovery, the table that it prints, and what it reads of a sample."""

import itertools
import logging
import math

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmengine.dist import get_rank, get_world_size
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from mmkd_ext.evaluation import NovelClassMetric, Prediction, best_head, read_prediction
from mmkd_ext.evaluation.novel_class_metric import metric_table

# --------------------------------------------------------------------------------------------------
# Novel class metric.


KNOWN, NOVEL, HEADS = 3, 3, 2
OBJECTIVE = (0.9, 0.4)


def make_samples(size=37, noise=1.0, seed=0):
    """Predictions whose clusters are permuted against the classes; 'train' holds novel classes only."""
    rng = torch.Generator().manual_seed(seed)
    permutation = [1, 2, 0]
    samples = []
    for index in range(size):
        split = 'train' if index % 3 == 0 else 'test'
        label = KNOWN + index // 3 % NOVEL if split == 'train' else index // 3 % (KNOWN + NOVEL)
        known = noise * torch.randn(KNOWN, generator=rng)
        novel = noise * torch.randn(HEADS, NOVEL, generator=rng)
        if label < KNOWN:
            known[label] += 2
        else:
            novel[:, permutation[label - KNOWN]] += 2
        samples.append(
            {
                'split_name': split,
                'gt_label': torch.tensor([label]),
                'known_logits': known,
                'novel_logits': novel,
                'head_objective': torch.tensor(OBJECTIVE),
            }
        )
    return samples


def evaluate(samples, batch_size=8, size=None, **kwargs):
    metric = NovelClassMetric(KNOWN, **kwargs)
    for start in range(0, len(samples), batch_size):
        metric.process(None, samples[start : start + batch_size])
    return metric.evaluate(len(samples) if size is None else size)


def columns(samples, split, head):
    chosen = [sample for sample in samples if sample['split_name'] == split]
    labels = np.array([int(sample['gt_label']) for sample in chosen])
    aware = np.array([int(sample['novel_logits'][head].argmax()) for sample in chosen])
    agnostic = np.array([int(torch.cat([s['known_logits'], s['novel_logits'][head]]).argmax()) for s in chosen])
    return labels, aware, agnostic


def best_mapping(labels, clusters, num_classes):
    """Try every one-to-one mapping of clusters to classes."""
    mappings = (np.array(mapping) for mapping in itertools.permutations(range(num_classes)))
    return max(mappings, key=lambda mapping: (mapping[clusters] == labels).sum())


def percent(hits):
    return 100 * np.mean(hits)


@pytest.mark.parametrize('noise', [0.3, 1.0, 3.0])
@pytest.mark.parametrize('head', range(HEADS))
def test_task_aware_numbers_against_all_mappings(noise, head):
    samples = make_samples(noise=noise)
    labels, clusters, _ = columns(samples, 'train', head)
    labels = labels - KNOWN
    accuracy = percent(best_mapping(labels, clusters, NOVEL)[clusters] == labels)
    metrics = evaluate(samples)
    assert metrics['train/novel_acc_heads'][head] == pytest.approx(accuracy)
    if head == int(np.argmin(OBJECTIVE)):
        assert metrics['train/novel_acc_best'] == pytest.approx(accuracy)
        assert metrics['train/novel_nmi_best'] == pytest.approx(100 * normalized_mutual_info_score(labels, clusters))
        assert metrics['train/novel_ari_best'] == pytest.approx(100 * adjusted_rand_score(labels, clusters))


def test_task_agnostic_numbers_against_all_mappings():
    samples = make_samples(size=61, noise=0.9)
    best = int(np.argmin(OBJECTIVE))
    labels, _, classes = columns(samples, 'test', best)
    is_known = labels < KNOWN
    metrics = evaluate(samples)

    v2 = best_mapping(labels, classes, KNOWN + NOVEL)[classes] == labels
    assert metrics['test/v2_all_best'] == pytest.approx(percent(v2))
    assert metrics['test/v2_known_best'] == pytest.approx(percent(v2[is_known]))
    assert metrics['test/v2_novel_best'] == pytest.approx(percent(v2[~is_known]))
    assert metrics['test/v1_all_best'] == pytest.approx(percent(v2))
    assert metrics['test/v1_known_best'] == pytest.approx(percent((classes == labels)[is_known]))
    novel_only = best_mapping(labels[~is_known], classes[~is_known], KNOWN + NOVEL)[classes[~is_known]]
    assert metrics['test/v1_novel_best'] == pytest.approx(percent(novel_only == labels[~is_known]))
    assert metrics['test/v3_known_best'] == metrics['test/v1_known_best']
    assert metrics['test/all_nmi_best'] == pytest.approx(100 * normalized_mutual_info_score(labels, classes))
    assert metrics['test/all_ari_best'] == pytest.approx(100 * adjusted_rand_score(labels, classes))


def test_plain_key_is_the_mean_over_heads():
    metrics = evaluate(make_samples(noise=2.0))
    for key in ('train/novel_acc', 'test/v2_all'):
        heads = metrics[f'{key}_heads']
        assert heads[0] != heads[1]
        assert metrics[key] == pytest.approx(np.mean(heads))
        assert metrics[f'{key}_best'] == heads[1]


def test_perfect_discovery_is_100_percent_whatever_the_order_of_clusters():
    metrics = evaluate(make_samples(noise=0.0))
    for protocol in ('v1', 'v2'):
        assert [metrics[f'test/{protocol}_{part}'] for part in ('all', 'known', 'novel')] == [100, 100, 100]
    assert metrics['train/novel_acc'] == metrics['train/novel_nmi'] == metrics['train/novel_ari'] == 100


def test_a_split_of_novel_classes_has_no_task_agnostic_numbers():
    metrics = evaluate(make_samples())
    assert {key for key in metrics if key.startswith('train/')} == {
        f'train/{key}{suffix}' for key in ('novel_acc', 'novel_nmi', 'novel_ari') for suffix in ('', '_best')
    } | {'train/novel_acc_heads'}
    assert 'test/novel_acc' in metrics


def test_a_split_of_known_classes_has_no_novel_numbers():
    samples = [sample for sample in make_samples() if sample['gt_label'] < KNOWN]
    metrics = evaluate(samples)
    assert 'test/v2_known' in metrics
    assert not any('novel' in key for key in metrics)


def test_supervised_stage_reports_known_accuracy_only():
    samples = make_samples(noise=2.0)
    for sample in samples:
        del sample['novel_logits'], sample['head_objective']
    known = [s for s in samples if s['split_name'] == 'test' and s['gt_label'] < KNOWN]
    correct = [int(sample['known_logits'].argmax()) == int(sample['gt_label']) for sample in known]
    assert evaluate(samples) == {'test/known_acc': pytest.approx(percent(correct))}


def test_numbers_do_not_depend_on_batches_or_order():
    samples = make_samples(size=40, noise=1.5)
    order = np.random.default_rng(0).permutation(40)
    expected = evaluate(samples)
    assert evaluate(samples, batch_size=40) == expected
    shuffled = evaluate([samples[i] for i in order], batch_size=7)
    assert shuffled.keys() == expected.keys()
    for key, value in expected.items():
        assert shuffled[key] == pytest.approx(value), key


def test_prefix_and_console_table(caplog):
    from mmengine.logging import MMLogger

    MMLogger.get_instance('metric', logger_name='metric').addHandler(caplog.handler)
    with caplog.at_level(logging.INFO):
        metrics = evaluate(make_samples(), prefix='ncd')
    assert 'ncd/train/novel_acc' in metrics
    assert any('task-agnostic v2' in message for message in caplog.messages)


def test_only_integers_are_kept():
    metric = NovelClassMetric(KNOWN)
    metric.process(None, make_samples(size=5))
    for row in metric.results:
        assert all(type(value) is int for value in (row.label, *row.task_aware, *row.task_agnostic))


def _evaluate_in_process(rank, world_size, init_file, samples, queue):
    torch.distributed.init_process_group('gloo', init_method=f'file://{init_file}', rank=rank, world_size=world_size)
    assert (get_rank(), get_world_size()) == (rank, world_size)
    # As DefaultSampler does: in turn, padded with the first samples.
    padded = samples + samples[: -len(samples) % world_size]
    metrics = evaluate(padded[rank::world_size], batch_size=4, size=len(samples), collect_device='gpu')
    queue.put((rank, metrics))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('size', [36, 37])
def test_two_processes_give_the_numbers_of_one(tmp_path, size):
    samples = make_samples(size=size, noise=1.5)
    context = mp.get_context('fork')
    queue = context.SimpleQueue()
    arguments = (2, tmp_path / 'init', samples, queue)
    processes = [context.Process(target=_evaluate_in_process, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    results = dict(queue.get() for _ in processes)
    for process in processes:
        process.join(30)
    expected = evaluate(samples)
    assert results[0] == expected
    assert results[1] == expected


def test_no_samples():
    with pytest.raises(ValueError, match='NovelClassMetric: expected samples but got none'):
        NovelClassMetric(KNOWN).evaluate(0)


def test_hidden_labels():
    samples = make_samples(size=2)
    samples[1]['gt_label'] = torch.tensor([-1])
    with pytest.raises(ValueError, match='set hide_labels=False'):
        evaluate(samples)


def test_bad_number_of_known_classes():
    with pytest.raises(ValueError, match='expected num_known >= 1 but got 0'):
        NovelClassMetric(0)
    with pytest.raises(ValueError, match=r'expected known_logits of shape \(4,\) but got \(3,\)'):
        NovelClassMetric(KNOWN + 1).process(None, make_samples(size=1))


# --------------------------------------------------------------------------------------------------
# Prediction.


def sample(**changes):
    known, novel = torch.tensor([0.1, 0.6, 0.2]), torch.tensor([[0.5, 0.3], [0.2, 0.9]])
    fields = {'split_name': 'test', 'gt_label': torch.tensor([4]), 'known_logits': known, 'novel_logits': novel}
    return {key: value for key, value in {**fields, **changes}.items() if value is not None}


def test_each_head_competes_alone_and_with_the_known_classes():
    prediction = read_prediction(sample(), num_known=3, caller='test')
    assert prediction == Prediction('test', 4, task_aware=(0, 1), task_agnostic=(1, 4))


def test_without_novel_head_the_known_head_answers():
    prediction = read_prediction(sample(novel_logits=None), num_known=3, caller='test')
    assert prediction == Prediction('test', 4, task_aware=(), task_agnostic=(1,))


def test_agrees_with_numpy_on_random_logits():
    known, novel = torch.randn(7), torch.randn(5, 4)
    prediction = read_prediction(sample(known_logits=known, novel_logits=novel), num_known=7, caller='test')
    for head in range(5):
        scores = np.concatenate([known.numpy(), novel[head].numpy()])
        assert prediction.task_agnostic[head] == scores.argmax()
        assert prediction.task_aware[head] == scores[7:].argmax()


def test_hidden_label_is_refused():
    with pytest.raises(ValueError, match='got -1; set hide_labels=False'):
        read_prediction(sample(gt_label=torch.tensor([-1])), num_known=3, caller='test')


def test_width_must_be_the_number_of_known_classes():
    with pytest.raises(ValueError, match=r'expected known_logits of shape \(4,\) but got \(3,\)'):
        read_prediction(sample(), num_known=4, caller='test')


@pytest.mark.parametrize('field', ['split_name', 'gt_label', 'known_logits'])
def test_missing_field_is_named(field):
    with pytest.raises(KeyError, match=f"test: expected predicted samples with '{field}'"):
        read_prediction(sample(**{field: None}), num_known=3, caller='test')


@pytest.mark.parametrize(
    ('objective', 'best'),
    [([2.0, 1.0, 3.0], 1), ([math.nan, 5.0, 4.0], 2), ([math.nan, math.nan], 0), ([1.0, 1.0], 0), ([], 0)],
)
def test_best_head_has_the_lowest_training_objective(objective, best):
    assert best_head(objective) == best


# --------------------------------------------------------------------------------------------------
# Table.


def metrics():
    numbers = {'unlabelled_train/novel_acc': 90.0, 'test/v2_all': 80.0, 'test/v2_known': 95.5, 'test/all_nmi': 71.25}
    return {**numbers, **{f'{key}_best': value + 1 for key, value in numbers.items()}}


def test_numbers_stand_in_their_column():
    lines = metric_table(metrics(), best=2).splitlines()
    assert 'best head (2)' in lines[0]
    assert lines[1].split()[:7] == ['split', 'protocol', 'all', 'known', 'novel', 'NMI', 'ARI']
    aware = next(line for line in lines if 'task-aware' in line)
    assert aware.split() == [
        'unlabelled_train',
        'task-aware',
        '-',
        '-',
        '90.00',
        '-',
        '-',
        '|',
        '-',
        '-',
        '91.00',
        '-',
        '-',
    ]
    agnostic = next(line for line in lines if 'v2' in line)
    assert agnostic.split()[3:8] == ['80.00', '95.50', '-', '71.25', '-']
    assert agnostic.split()[9:] == ['81.00', '96.50', '-', '72.25', '-']


def test_rows_without_numbers_are_left_out_and_all_lines_align():
    lines = metric_table(metrics(), best=0).splitlines()
    assert len(lines) == 4
    assert len({line.index('|') for line in lines}) == 1
