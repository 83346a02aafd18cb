"""The plain published forms of ``tests/oracles`` against official outputs, and where there are none against loops."""

import math

import numpy as np
import pytest
import torch

import published_discovery
import published_relations

F64 = {'rtol': 1e-9, 'atol': 1e-12}


def check(golden, archive, case, loss):
    vectors = golden(archive)
    student, teacher, expected, expected_grad = (
        torch.from_numpy(vectors[f'{case}_{name}']) for name in ('student', 'teacher', 'loss', 'grad')
    )
    value = loss(student.requires_grad_(), teacher)
    (gradient,) = torch.autograd.grad(value, student)
    torch.testing.assert_close(value, expected.squeeze(), **F64)
    torch.testing.assert_close(gradient, expected_grad, **F64)


@pytest.mark.parametrize('case', ['plain_B3_D4_f64', 'plain_B8_D64_f64', 'plain_B32_D4_f64'])
@pytest.mark.parametrize('name', ['rkd_distance', 'rkd_angle'])
def test_rkd(golden, name, case):
    check(golden, name, case, getattr(published_relations, name))


@pytest.mark.parametrize('case', ['plain_B8_D64_f64', 'plain_B32_D4_f64'])
def test_dark_rank(golden, case):
    check(golden, 'rkd_harddarkrank', case, published_relations.hard_dark_rank)


@pytest.mark.parametrize('case', ['2d_plain_B8_f64', '2d_plain_B32_f64', '2d_dup_B8_f64'])
def test_similarity_preserving(golden, case):
    check(golden, 'repdistiller_sp', case, published_relations.similarity_preserving)


def test_attention_transfer(golden):
    check(golden, 'rkd_at_fitnet', 'at_B3_zero0_f64', published_relations.attention_transfer)


@pytest.mark.parametrize('form', ['correlation_rows', 'correlation_matrix'])
def test_correlation_of_the_dossier(form):
    student = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1]], dtype=torch.float64)
    teacher = torch.tensor([[1, 0], [1, 1], [0, 2]], dtype=torch.float64)
    value = getattr(published_relations, form)(student, teacher)
    assert float(value) == pytest.approx(0.0236272467208395, rel=1e-12)
    assert float(published_relations.correlation_exact(student, teacher)) == pytest.approx(
        0.0259591705064262, rel=1e-12
    )


def test_category_structure_of_the_dossier():
    student = torch.tensor([[2, 0], [0, 1], [0, 2], [1, 1]], dtype=torch.float64)
    teacher = torch.tensor([[3, 0], [1, 0], [0, 3], [0, 1]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    assert float(published_relations.intra_category(student, teacher, labels)) == pytest.approx(0.375, abs=1e-12)
    assert float(published_relations.inter_category(student, teacher, labels)) == pytest.approx(0.25, abs=1e-12)


def test_soft_target_by_hand():
    """Odds 3 : 1 against 1 : 1 at temperature 2, times its square."""
    teacher = torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.float64)
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    value = published_relations.soft_target(torch.zeros_like(teacher), teacher, temperature=2.0)
    assert float(value) == pytest.approx(expected, rel=1e-12)


def test_recall(golden):
    vectors = golden('rkd_recall')
    x, labels, ks, expected = (vectors[f'plain_B32_D64_f64_{key}'] for key in ('emb', 'labels', 'K', 'recall'))
    found = published_relations.recall_at_k(torch.from_numpy(x), torch.from_numpy(labels), tuple(ks.tolist()))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('case', ['B8_K5_f64', 'B64_K20_f64', 'B256_K5_f64'])
def test_sinkhorn(golden, case):
    vectors = golden('crkd_sinkhorn')
    logits, expected = (torch.from_numpy(vectors[f'{case}_{name}']) for name in ('logits', 'Q'))
    torch.testing.assert_close(published_discovery.sinkhorn(logits), expected, **F64)
    stacked = published_discovery.sinkhorn_each(logits.expand(2, 3, -1, -1))
    torch.testing.assert_close(stacked, expected.expand(2, 3, -1, -1), **F64)


@pytest.mark.parametrize('case', ['mix5_5', 'T1_tau.1', 'V1_H1'])
def test_class_relation_kd(golden, case):
    vectors = golden('crkd_kd')
    rows = ~torch.from_numpy(vectors[f'{case}_mask_lab'])
    student = torch.from_numpy(vectors[f'{case}_f64_new_logits']).requires_grad_()
    teacher = torch.from_numpy(vectors[f'{case}_f64_old_logits'])
    temperatures = float(vectors[f'{case}_tau']), float(vectors[f'{case}_T'])
    loss = published_discovery.class_relation_kd(student[:, :, rows], teacher[:, :, rows], *temperatures)
    (gradient,) = torch.autograd.grad(loss.mean(), student)
    torch.testing.assert_close(loss, torch.from_numpy(vectors[f'{case}_f64_loss_per_head']), **F64)
    torch.testing.assert_close(gradient, torch.from_numpy(vectors[f'{case}_f64_grad_new_of_mean']), **F64)


@pytest.mark.parametrize('case', ['2large_2small', '2large', '1head'])
def test_swapped_prediction(golden, case):
    vectors = golden('crkd_swapped_prediction')
    logits, targets, expected = (
        torch.from_numpy(vectors[f'{case}_f64_{name}']) for name in ('logits', 'targets', 'loss_per_head')
    )
    num_large, temperature = int(vectors[f'{case}_num_large_crops']), float(vectors[f'{case}_temperature'])
    loss = published_discovery.swapped_prediction(logits, targets, num_large, temperature)
    torch.testing.assert_close(loss, expected, **F64)


@pytest.mark.parametrize('case', ['random10', 'noisy20', 'pred15_true10'])
def test_cluster_scores(golden, case):
    vectors = golden('crkd_cluster_metrics')
    scores = published_discovery.cluster_scores(vectors[f'{case}/y_true'], vectors[f'{case}/y_pred'])
    expected = [float(vectors[f'{case}/cluster_eval_all/{name}']) for name in ('novel', 'novel_nmi', 'novel_ari')]
    assert scores == pytest.approx(expected, rel=1e-9)
