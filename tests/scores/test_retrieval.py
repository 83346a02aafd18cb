"""Retrieval scores against loops over sorted distances, the official Recall@K, and figures worked out by hand."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from mmkd_ext.scores.retrieval import recall_at_k, retrieval_scores

KS = (1, 2, 4, 8)


def loops(queries, labels, gallery=None, gallery_labels=None):
    """Definitions, query by query, with Python's sort of (distance, index)."""
    items, classes = (queries, labels) if gallery is None else (gallery, gallery_labels)
    sums = {**{f'recall@{k}': 0.0 for k in KS}, 'map@r': 0.0, 'r_precision': 0.0}
    for own, (query, label) in enumerate(zip(queries.double(), labels.tolist(), strict=True)):
        squares = (items.double() - query).square().sum(dim=1).tolist()
        order = sorted((square, i) for i, square in enumerate(squares) if gallery is not None or i != own)
        hits = [int(classes[i]) == label for _, i in order]
        number = sum(hits)
        for k in KS:
            sums[f'recall@{k}'] += any(hits[:k])
        for i in range(number):
            sums['r_precision'] += hits[i] / number
            sums['map@r'] += hits[i] * np.mean(hits[: i + 1]) / number
    return {name: total / len(queries) for name, total in sums.items()}


@pytest.mark.parametrize('seed', range(30))
def test_against_loops_on_ties_and_duplicates(seed):
    rng = np.random.default_rng(seed)
    size, num_items, num_dims, num_classes = (
        int(rng.integers(*bounds)) for bounds in ((2, 60), (1, 60), (1, 4), (1, 9))
    )
    queries, gallery = (
        torch.tensor(rng.integers(-1, 2, (n, num_dims)), dtype=torch.float32) for n in (size, num_items)
    )
    labels, found = (torch.tensor(rng.integers(0, num_classes, n)) for n in (size, num_items))
    for arguments in ((queries, labels), (queries, labels, gallery, found)):
        expected = loops(*arguments)
        assert retrieval_scores(*arguments[:2], KS, *arguments[2:]) == pytest.approx(expected)
        recall = recall_at_k(*arguments[:2], KS, *arguments[2:])
        assert recall == pytest.approx({k: expected[f'recall@{k}'] for k in KS})


def extremes(embeddings, labels, k):
    """Recall@K if equal distances are ordered to its disadvantage, and to its advantage."""
    squares = np.square(embeddings[:, None].astype(float) - embeddings).sum(axis=2)
    low = high = 0
    for own, row in enumerate(squares):
        relevant, other = labels == labels[own], labels != labels[own]
        relevant[own] = False
        if relevant.any():
            best = row[relevant].min()
            low += (row[other] <= best * (1 + 1e-9)).sum() < k
            high += (row[other] < best * (1 - 1e-9)).sum() < k
    return low / len(labels), high / len(labels)


def test_against_official_recall(golden):
    """Equal but where duplicates of two classes are equally near: there the official order is any."""
    vectors = golden('rkd_recall')
    open_cases = []
    for case in (name.removesuffix('_emb') for name in vectors if name.endswith('_emb')):
        embeddings, labels = vectors[f'{case}_emb'], vectors[f'{case}_labels']
        recall = recall_at_k(torch.from_numpy(embeddings), torch.from_numpy(labels), vectors[f'{case}_K'].tolist())
        for (k, found), official in zip(recall.items(), vectors[f'{case}_recall'], strict=True):
            low, high = extremes(embeddings, labels, k)
            assert low - 1e-6 <= official <= high + 1e-6
            assert low <= found <= high
            if low < high:
                open_cases.append((case, k))
            else:
                assert found == pytest.approx(official, abs=1e-6)
    assert open_cases == [('dup_B32_D64_f64', 1), ('dup_B32_D64_f32', 1)]


def test_against_scikit_learn():
    embeddings, labels = torch.randn(400, 8), torch.randint(20, (400,))
    nearest = NearestNeighbors(n_neighbors=8).fit(embeddings.numpy()).kneighbors(return_distance=False)
    hits = labels.numpy()[nearest] == labels.numpy()[:, None]
    assert recall_at_k(embeddings, labels, KS) == pytest.approx({k: hits[:, :k].any(axis=1).mean() for k in KS})


def test_worked_out_by_hand():
    """On a line, classes a a b a b: R = 2, 2, 1, 2, 1.

    Neighbours of 0: 1, 3, so hits 1, 0; of 1: 0, 3 -> 1, 0; of 3: 1 -> 0; of 6: 3, 1 -> 0, 1; of 12: 6, 3 -> 0, 1.
    """
    embeddings, labels = torch.tensor([[0.0], [1.0], [3.0], [6.0], [12.0]]), torch.tensor([5, 5, 9, 5, 9])
    scores = retrieval_scores(embeddings, labels, ks=(1, 2))
    assert scores == pytest.approx(
        {'recall@1': 2 / 5, 'recall@2': 4 / 5, 'map@r': (0.5 + 0.5 + 0.25) / 5, 'r_precision': 1.5 / 5}
    )


def test_separated_classes_are_found_whole():
    labels = torch.arange(60) % 6
    embeddings = torch.eye(6)[labels] + 0.01 * torch.randn(60, 6)
    assert list(retrieval_scores(embeddings, labels).values()) == pytest.approx([1.0] * 6)


def test_a_query_without_relevant_items_is_a_miss():
    embeddings = torch.tensor([[0.0], [0.1], [5.0]])
    assert recall_at_k(embeddings, torch.tensor([0, 0, 1]), ks=(1, 2)) == pytest.approx({1: 2 / 3, 2: 2 / 3})
    assert set(retrieval_scores(embeddings, torch.tensor([0, 1, 2])).values()) == {0.0}
    assert recall_at_k(torch.ones(1, 2), torch.tensor([0]), ks=(1,)) == {1: 0.0}


def test_more_neighbours_than_items():
    assert recall_at_k(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 0]), ks=(1, 99)) == {1: 1.0, 99: 1.0}


def test_labels_may_be_any_integers():
    embeddings, labels = torch.randn(50, 4), torch.randint(5, (50,))
    assert retrieval_scores(embeddings, 10**12 - 7 * labels) == retrieval_scores(embeddings, labels)


def test_labels_may_be_of_any_type():
    embeddings, labels = torch.randn(50, 4), torch.randint(2, (50,))
    other, found = torch.randn(30, 4), torch.randint(2, (30,))
    for function in (recall_at_k, retrieval_scores):
        assert function(embeddings, labels.bool()) == function(embeddings, labels)
        expected = function(embeddings, labels, KS, other, found)
        assert function(embeddings, labels.bool(), KS, other, found.bool()) == expected
        assert function(embeddings, labels.int(), KS, other, found) == expected


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64])
def test_scores_are_sums_in_double_precision_whatever_the_default(dtype):
    embeddings, labels = torch.randn(40, 4), torch.arange(40) % 3
    expected, default = loops(embeddings, labels), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = retrieval_scores(embeddings, labels, KS)
    finally:
        torch.set_default_dtype(default)
    assert found == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize('ks', [5, 1.5, (1.5,), (1, 2.0), (True,), '12', {1, 2}], ids=str)
@pytest.mark.parametrize('function', [recall_at_k, retrieval_scores])
def test_numbers_of_neighbours_are_integers(function, ks):
    with pytest.raises(TypeError, match=r'retrieval: expected ks of integers but got .*; write for example \(1, 2\)'):
        function(torch.ones(3, 2), torch.zeros(3), ks)


def test_numbers_of_neighbours_may_be_of_numpy():
    assert recall_at_k(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 0]), list(np.arange(1, 3))) == {1: 1.0, 2: 1.0}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((torch.ones(3, 2), torch.zeros(3), ()), 'expected ks of numbers >= 1 but got'),
        ((torch.ones(3, 2), torch.zeros(3), (0, 1)), 'expected ks of numbers >= 1 but got'),
        ((torch.ones(3, 2), torch.zeros(2)), r'one label each, at least one, but got .* \(3, 2\) and .* \(2,\)'),
        ((torch.ones(0, 2), torch.zeros(0)), 'expected queries with one label each, at least one'),
        ((torch.ones(3, 2), torch.zeros(3), (1,), torch.ones(4, 2)), 'both gallery and gallery_labels'),
        ((torch.ones(3, 2), torch.zeros(3), (1,), torch.ones(0, 2), torch.zeros(0)), 'expected gallery with one label'),
    ],
)
@pytest.mark.parametrize('function', [recall_at_k, retrieval_scores])
def test_wrong_input(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
