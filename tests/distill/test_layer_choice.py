"""One loss of several pairs of layers: which, how weighed, what is kept, and the same on all processes."""

import pytest
import torch
from torch import distributed

from mmkd_ext.distill.layer_choice import build_layer_choice, pair_factors, pair_weights
from mmkd_ext.scores.similarity import linear_cka

PAIRS = (('a', 'c'), ('a', 'd'), ('b', 'c'), ('b', 'd'))


def features(num_samples=8, dtype=torch.float32):
    source = torch.Generator().manual_seed(5)
    student = {tap: torch.randn(num_samples, 3, 2, 2, generator=source, dtype=dtype) for tap in 'ab'}
    noise = {tap: torch.randn(num_samples, 3, generator=source, dtype=dtype) for tap in 'cd'}
    rows = {tap: x.mean((2, 3)) for tap, x in student.items()}
    return student, {'c': rows['b'] + 0.1 * noise['c'], 'd': -2 * rows['a'] + 0.1 * noise['d']}


# All alike


def test_uniform():
    choice = build_layer_choice('uniform', PAIRS)
    assert list(choice.active({}, {})) == [0, 1, 2, 3]
    assert choice.combine(torch.tensor([1.0, 2.0, 3.0, 6.0])) == 3
    assert choice.weights() == [0.25] * 4
    assert choice.state_dict() == {}


# By CKA


def test_each_layer_gets_the_one_that_is_most_alike():
    student, teacher = features()
    choice = build_layer_choice('cka', PAIRS)
    assert choice.active(student, teacher) == [1, 2]
    assert choice.weights() == [0, 0.5, 0.5, 0]
    assert choice.combine(torch.tensor([1.0, 4.0])) == 2.5
    alike = {pair: linear_cka(student[pair[0]].mean((2, 3)), teacher[pair[1]], debiased=True) for pair in PAIRS}
    assert alike['a', 'd'] > alike['a', 'c']
    assert alike['b', 'c'] > alike['b', 'd']


def test_the_choice_is_made_once():
    student, teacher = features()
    choice = build_layer_choice('cka', PAIRS)
    choice.active(student, teacher)
    assert choice.active(student, {'c': teacher['d'], 'd': teacher['c']}) == [1, 2]


def test_of_equal_ones_the_first():
    student, _ = features()
    teacher = dict.fromkeys('cd', student['a'])
    assert build_layer_choice('cka', PAIRS).active(student, teacher) == [0, 2]


def test_too_few_samples_to_choose_by():
    with pytest.raises(ValueError, match='expected at least 4 samples'):
        build_layer_choice('cka', PAIRS).active(*features(3))


def test_features_without_spread():
    student, teacher = {tap: torch.ones(8, 3) for tap in 'ab'}, {tap: torch.zeros(8, 3) for tap in 'cd'}
    assert build_layer_choice('cka', PAIRS).active(student, teacher) == [0, 2]


# By what has been learned


def test_normalized_losses_have_equal_parts():
    choice = build_layer_choice('normalized', PAIRS)
    for losses in (torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 2.0, 1.0, 5.0])):
        choice.combine(losses)
    mean = 0.9 * torch.tensor([1.0, 2.0, 3.0, 4.0]) + 0.1 * losses
    torch.testing.assert_close(choice.mean, mean)
    torch.testing.assert_close(choice.combine(mean), mean.mean())
    assert choice.weights() == [0.25] * 4


def test_adaptive_weights_step_by_step():
    choice = build_layer_choice('adaptive', PAIRS)
    course = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.5, 2.0, 1.0, 5.0], [0.1, 2.0, 0.5, 6.0]], dtype=torch.float64)
    mean = course[0]
    for step, losses in enumerate(course):
        mean = mean if step == 0 else 0.9 * mean + 0.1 * losses
        weights = pair_weights(course[0], mean)
        expected = (weights * pair_factors(mean) * losses).sum()
        torch.testing.assert_close(choice.combine(losses), expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(choice.weights().double(), weights)


def test_in_the_first_step_the_loss_is_the_mean_and_every_pair_has_an_equal_part():
    losses = torch.tensor([1.0, 2.0, 3.0, 6.0], requires_grad=True)
    loss = build_layer_choice('adaptive', PAIRS).combine(losses)
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(3.0))
    torch.testing.assert_close(losses.grad * losses.detach(), torch.full((4,), 0.75))


def test_losses_of_zero():
    choice = build_layer_choice('adaptive', PAIRS)
    for losses in (torch.zeros(4), torch.ones(4), torch.zeros(4)):
        assert choice.combine(losses).isfinite()
    torch.testing.assert_close(choice.weights().sum(), torch.tensor(1.0))


# State


@pytest.mark.parametrize('name', ['cka', 'normalized', 'adaptive'])
def test_goes_on_where_it_was(name, tmp_path):
    student, teacher = features()
    whole = build_layer_choice(name, PAIRS)
    whole.active(student, teacher)
    whole.combine(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    torch.save(whole.state_dict(), tmp_path / 'state.pth')
    resumed = build_layer_choice(name, PAIRS)
    resumed.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True))
    losses = torch.tensor([0.5, 2.0, 1.0, 9.0])
    swapped = {'c': teacher['d'], 'd': teacher['c']}
    assert list(resumed.active(student, swapped)) == list(whole.active(student, swapped))
    assert torch.equal(resumed.combine(losses), whole.combine(losses))


def test_before_the_first_step_there_is_nothing_to_keep(tmp_path):
    for name in ('cka', 'adaptive'):
        torch.save(build_layer_choice(name, PAIRS).state_dict(), tmp_path / 'state.pth')
        choice = build_layer_choice(name, PAIRS)
        choice.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True))
        assert list(choice.active(*features())) in ([1, 2], [0, 1, 2, 3])
        choice.combine(torch.ones(4))


# Processes


def _choose(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    part = slice(3 * rank, 3 + 5 * rank)
    student, teacher = ({tap: x[part] for tap, x in side.items()} for side in features())
    by_cka, adaptive = build_layer_choice('cka', PAIRS), build_layer_choice('adaptive', PAIRS)
    adaptive.combine(torch.tensor([1.0, 1.0, 2.0, 2.0]) * (1 + 2 * rank))
    adaptive.combine(torch.tensor([1.0, 0.0, 1.0, 2.0]) * (1 + 2 * rank))
    torch.save((by_cka.active(student, teacher), adaptive.weights()), folder / f'{rank}.pth')
    distributed.destroy_process_group()


def test_processes_choose_together(tmp_path):
    torch.multiprocessing.start_processes(_choose, (tmp_path,), nprocs=2, start_method='fork')
    expected = build_layer_choice('adaptive', PAIRS)
    expected.combine(torch.tensor([1.0, 1.0, 2.0, 2.0]) * 2)
    expected.combine(torch.tensor([1.0, 0.0, 1.0, 2.0]) * 2)
    for rank in range(2):
        chosen, weights = torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        assert chosen == [1, 2]  # of 3 samples alone, a process could not even compute it
        torch.testing.assert_close(weights, expected.weights())


@pytest.mark.parametrize(
    ('name', 'pairs', 'message'),
    [
        ('best', PAIRS, r"expected choice in \('uniform', 'normalized', 'cka', 'adaptive'\) but got 'best'"),
        ('cka', PAIRS + PAIRS[:1], 'expected every pair once but got'),
    ],
)
def test_refuses(name, pairs, message):
    with pytest.raises(ValueError, match=message):
        build_layer_choice(name, pairs)
