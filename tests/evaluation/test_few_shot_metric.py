import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from mmkd_ext.evaluation import FewShotMetric
from mmkd_ext.evaluation.few_shot_metric import mean_and_interval
from mmkd_ext.functional import draw_episodes

NUM_CLASSES, PER_CLASS = 8, 12


def samples_of(spread=1.0, seed=0):
    """Classes around random centres, mixed."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(NUM_CLASSES, 4, generator=generator)
    labels = torch.randperm(NUM_CLASSES * PER_CLASS, generator=generator) % NUM_CLASSES
    noise = spread * torch.randn(len(labels), 4, generator=generator)
    return [
        {'embedding': centres[k] + e, 'gt_label': torch.tensor([k])}
        for k, e in zip(labels.tolist(), noise, strict=True)
    ]


def evaluate(samples, batch_size=10, **kwargs):
    metric = FewShotMetric(**{'tasks': [(5, 1), (3, 4)], 'num_queries': 6, 'num_episodes': 120, **kwargs})
    for start in range(0, len(samples), batch_size):
        metric.process(None, samples[start : start + batch_size])
    return metric.evaluate(len(samples))


def test_episode_by_episode():
    samples = samples_of()
    embedding = torch.stack([sample['embedding'] for sample in samples]).double().numpy()
    labels = np.array([int(sample['gt_label']) for sample in samples])
    metrics = evaluate(samples, seed=5)
    for ways, shots in ((5, 1), (3, 4)):
        accuracies = []
        for episode in draw_episodes(labels, ways, shots + 6, 120, np.random.default_rng(5)):
            prototypes = {labels[rows[0]]: embedding[rows[:shots]].mean(axis=0) for rows in episode}
            right = [
                min(prototypes, key=lambda k: np.linalg.norm(embedding[row] - prototypes[k])) == labels[row]
                for rows in episode
                for row in rows[shots:]
            ]
            accuracies.append(100 * np.mean(right))
        low, high = stats.norm.interval(0.95, np.mean(accuracies), stats.sem(accuracies))
        assert metrics[f'{ways}way_{shots}shot'] == pytest.approx(np.mean(accuracies), abs=1e-9)
        assert metrics[f'{ways}way_{shots}shot_ci95'] == pytest.approx((high - low) / 2, rel=1e-4)


def test_interval_of_a_known_sample():
    mean, half_width = mean_and_interval(np.array([0.5, 0.7, 0.9, 0.7]))
    assert mean == pytest.approx(0.7)
    assert half_width == pytest.approx(1.96 * np.sqrt(0.08 / 3) / 2)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    trials = [mean_and_interval(generator.random(100)) for _ in range(2000)]
    covered = sum(abs(mean - 0.5) < half_width for mean, half_width in trials)
    assert stats.binomtest(covered, len(trials), 0.945).pvalue > 1e-3


def test_separate_classes_are_all_found_and_equal_embeddings_are_chance():
    assert evaluate(samples_of(spread=1e-3))['5way_1shot'] == 100
    equal = [{**sample, 'embedding': torch.ones(4)} for sample in samples_of()]
    assert evaluate(equal)['5way_1shot'] == pytest.approx(20)


def test_same_episodes_whatever_the_batches_and_in_every_evaluation():
    samples = samples_of()
    assert evaluate(samples) == evaluate(samples, batch_size=96)
    assert evaluate(samples) != evaluate(samples, seed=1)


def test_scale_and_names_of_classes_do_not_matter():
    samples = samples_of()
    renamed = [{'embedding': 8 * s['embedding'], 'gt_label': 3 * s['gt_label'] + 1} for s in samples]
    assert evaluate(renamed) == evaluate(samples)


def test_what_goes_to_other_processes_is_no_larger_than_the_embeddings():
    batch = torch.randn(500, 64)
    metric = FewShotMetric()
    metric.process(None, [{'embedding': row, 'gt_label': torch.tensor([0])} for row in batch])
    assert len(pickle.dumps(metric.results)) < 2 * 4 * batch.numel()


def test_missing_fields():
    with pytest.raises(KeyError, match=r'FewShotMetric.*embedding.*; evaluate a model'):
        FewShotMetric().process(None, [{'gt_label': torch.tensor([1])}])


def test_too_few_images():
    with pytest.raises(ValueError, match='expected at least 5 classes, each with at least 16 samples'):
        evaluate(samples_of(), num_queries=15)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_no_number_is_not_chance(value):
    samples = samples_of()
    samples[7]['embedding'][1] = value
    with pytest.raises(ValueError, match='FewShotMetric: expected finite embeddings but got NaN or infinite values'):
        evaluate(samples)


def test_no_samples():
    with pytest.raises(ValueError, match='FewShotMetric: expected samples but got none; check the evaluation data set'):
        evaluate([])


def test_maps_are_refused():
    with pytest.raises(ValueError, match=r'FewShotMetric: expected an embedding of shape \(D,\) but got \(6, 2\)'):
        FewShotMetric().process(None, [{'embedding': torch.ones(6, 2), 'gt_label': torch.tensor([0])}])


@pytest.mark.parametrize('tasks', [(5, 1), 5, ((5, 1, 3),), ((5,),), ((5, 1.5),), ('51',)], ids=str)
def test_tasks_are_pairs(tasks):
    with pytest.raises(TypeError, match=r'FewShotMetric: expected tasks to be pairs of integers \(ways, shots\)'):
        FewShotMetric(tasks=tasks)


@pytest.mark.parametrize('settings', [{'tasks': []}, {'tasks': [(5, 0)]}, {'num_queries': 0}, {'num_episodes': 1}])
def test_settings_are_checked(settings):
    with pytest.raises(ValueError, match='FewShotMetric: expected at least one task of ways and shots >= 1'):
        FewShotMetric(**settings)
