"""class_transport against linear programming and the published form, its marginals, and the costs against CKA."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import published_relations
from mmkd_ext.functional import class_costs, class_transport
from mmkd_ext.scores import linear_cka

F64 = {'rtol': 1e-9, 'atol': 1e-12}


def random_case(num_samples=6, num_classes=5):
    student, teacher = torch.randn(2, num_samples, num_classes, dtype=torch.float64).unbind()
    cost = torch.rand(num_classes, num_classes, dtype=torch.float64)
    cost = (cost + cost.T) / 2
    return student, teacher, cost.fill_diagonal_(0), torch.arange(num_samples) % num_classes


@pytest.mark.parametrize('settings', [{}, dict(temperature=1.0, epsilon=0.5, num_iters=3)], ids=str)
@pytest.mark.parametrize('separate', [False, True])
def test_published_form_and_its_gradient(separate, settings):
    student, teacher, cost, labels = random_case()
    student.requires_grad_()
    labels = labels if separate else None
    losses = [
        class_transport(student, teacher, cost=cost, labels=labels, **settings),
        published_relations.class_transport(student, teacher, cost, labels, **settings),
    ]
    torch.testing.assert_close(*losses, **F64)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in losses), **F64)


def test_cost_of_the_best_plan_as_the_entropy_fades():
    student, teacher, cost, _ = random_case(num_samples=2)
    q, p = ((x / 2).softmax(1).numpy() for x in (student, teacher))
    sums = np.vstack([np.kron(np.eye(5), np.ones(5)), np.kron(np.ones(5), np.eye(5))])
    best = np.mean(
        [linprog(cost.flatten().numpy(), A_eq=sums, b_eq=np.concatenate([a, b])).fun for a, b in zip(q, p, strict=True)]
    )
    loss = class_transport(student, teacher, cost=cost, epsilon=0.03, num_iters=3000)
    assert loss.item() == pytest.approx(best, rel=0.02)
    assert loss >= best - 1e-6


@pytest.mark.parametrize('separate', [False, True])
def test_gradcheck(separate):
    student, teacher, cost, labels = random_case()
    settings = dict(cost=cost, labels=labels if separate else None, target_weight=0.5 if separate else 0.0)
    assert torch.autograd.gradcheck(lambda s: class_transport(s, teacher, **settings), (student.requires_grad_(),))


def test_the_target_has_a_term_of_its_own():
    student, teacher, cost, labels = random_case()
    both, transport = (class_transport(student, teacher, cost=cost, labels=labels, target_weight=w) for w in (2.0, 0.0))
    of_target = [-t.softmax(0)[y] * s.log_softmax(0)[y] for s, t, y in zip(student, teacher, labels, strict=True)]
    torch.testing.assert_close(both, transport + 2 * sum(of_target) / 6, **F64)
    # What the networks say of the target itself moves nothing.
    changed = student.clone()
    changed[torch.arange(6), labels] += 3
    torch.testing.assert_close(class_transport(changed, teacher, cost=cost, labels=labels), transport, **F64)
    unlabelled = class_transport(student, teacher, cost=cost, labels=torch.full((6,), -1), target_weight=2.0)
    torch.testing.assert_close(unlabelled, class_transport(student, teacher, cost=cost), **F64)


def test_invariances():
    student, teacher, cost, _ = random_case()
    expected = class_transport(student, teacher, cost=cost)
    order = torch.randperm(5)
    permuted = class_transport(student[:, order], teacher[:, order], cost=cost[order][:, order])
    torch.testing.assert_close(permuted, expected)
    torch.testing.assert_close(class_transport(student + torch.randn(6, 1).double(), teacher, cost=cost), expected)


def test_a_related_class_is_a_short_way():
    cost = torch.tensor([[0.0, 0.1, 1.0], [0.1, 0.0, 1.0], [1.0, 1.0, 0.0]])
    teacher, near, far = 8 * torch.eye(3)[:, None]
    assert class_transport(near, teacher, cost=cost) < 0.5 * class_transport(far, teacher, cost=cost)
    torch.testing.assert_close(class_transport(near, teacher), class_transport(far, teacher))


def test_huge_logits_an_empty_batch_and_no_gradient_into_the_teacher():
    student, teacher, cost, labels = random_case()
    for scale in (1e4, 1e18):
        leaf, other = (scale * student.float()).requires_grad_(), (scale * teacher.float()).requires_grad_()
        loss = class_transport(leaf, other, cost=cost, labels=labels, target_weight=1.0)
        loss.backward()
        assert loss.isfinite()
        assert leaf.grad.isfinite().all()
        assert other.grad is None
    empty = torch.zeros(0, 5, requires_grad=True)
    class_transport(empty, torch.zeros(0, 5)).backward()
    assert empty.grad.shape == (0, 5)


def test_costs_between_classes():
    features, labels = torch.randn(20, 3, 4, dtype=torch.float64), torch.arange(20) % 4
    cost, of_centres = (class_costs(features, labels, num_classes=4, relation=r) for r in ('cka', 'centres'))
    for i in range(4):
        for j in range(4):
            one, other = features[labels == i], features[labels == j]
            torch.testing.assert_close(cost[i, j], 1 - linear_cka(one, other), rtol=1e-9, atol=1e-12)
            cosine = torch.cosine_similarity(one.mean(0).flatten(), other.mean(0).flatten(), dim=0)
            torch.testing.assert_close(of_centres[i, j], 1 - cosine, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(class_costs(features, labels, num_classes=4, sharpness=3.0), 1 - (-3 * cost).exp())
    with pytest.raises(ValueError, match='class_costs: expected at least 2 images of each class but got 0 of class 4'):
        class_costs(features, labels, num_classes=5)
    with pytest.raises(ValueError, match='class_costs: expected at least 1 images of each class but got 0 of class 4'):
        class_costs(features, labels, num_classes=5, relation='centres')


def test_what_is_refused():
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r'class_transport: expected cost of shape \(3, 3\) but got \(4, 4\)'):
        class_transport(logits, logits, cost=torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r'class_transport: expected 0 <= cost <= 2, 40 epsilon, but got'):
        class_transport(logits, logits, cost=torch.full((3, 3), 2.5))
