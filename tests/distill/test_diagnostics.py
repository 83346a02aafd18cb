import pytest
import torch
from torch import nn

from mmkd_ext.distill import Term
from mmkd_ext.distill.report import diagnose, loss_share
from mmkd_ext.scores.similarity import collapse, linear_cka


class Loss(nn.Module):
    def forward(self, student, teacher):
        return student.sum()


def term(**options):
    return Term('sp', 'neck', 'neck', Loss(), **options)


def diagnose_pair(a_term, student, teacher, num_samples):
    return diagnose(a_term, {'neck': student}, {'neck': teacher}, num_samples)


def test_rows():
    student, teacher = torch.randn(6, 4, requires_grad=True), torch.randn(6, 5)
    statistics = diagnose_pair(term(), student, teacher, 6)
    assert set(statistics) == {'cka_sp', 'collapse_sp'}
    torch.testing.assert_close(statistics['cka_sp'], linear_cka(student, teacher, debiased=True))
    torch.testing.assert_close(statistics['collapse_sp'], collapse(student))
    assert not any(value.requires_grad for value in statistics.values())


def test_maps_are_pooled():
    student, teacher = torch.randn(6, 4, 3, 3), torch.randn(6, 5, 2, 2)
    statistics = diagnose_pair(term(), student, teacher, 6)
    expected = linear_cka(student.mean((2, 3)), teacher.mean((2, 3)), debiased=True)
    torch.testing.assert_close(statistics['cka_sp'], expected)


@pytest.mark.parametrize(
    ('student', 'teacher', 'num_samples', 'names'),
    [
        (torch.ones(2, 1, 8, 3), torch.ones(2, 1, 8, 3), 8, set()),  # stacked views
        (torch.ones(6, 3), torch.ones(5, 3), 5, set()),
        (torch.ones(1, 3), torch.ones(1, 3), 1, set()),
        (torch.ones(6), torch.ones(6), 6, set()),
        (torch.ones(3, 2), torch.ones(3, 2), 3, {'collapse_sp'}),
        (torch.ones(8, 2), torch.ones(8, 2), 4, {'collapse_sp', 'cka_sp'}),  # two views in one tensor
    ],
)
def test_only_where_rows_are_samples(student, teacher, num_samples, names):
    assert set(diagnose_pair(term(), student, teacher, num_samples)) == names


def test_agreement():
    student = torch.tensor([[3.0, 1.0], [0.0, 1.0], [2.0, 1.0], [5.0, 1.0]])
    teacher = torch.tensor([[9.0, 1.0], [1.0, 0.0], [2.0, 1.0], [0.0, 1.0]])
    assert diagnose_pair(term(agreement=True), student, teacher, 4)['agree_sp'] == 0.5
    maps = student.T.reshape(1, 2, 2, 2), teacher.T.reshape(1, 2, 2, 2)
    assert diagnose_pair(term(agreement=True), *maps, 1)['agree_sp'] == 0.5


def test_agreement_between_other_classes():
    with pytest.raises(ValueError, match=r"term 'sp': expected logits .* got \(4, 2\) of the student and \(4, 3\)"):
        diagnose_pair(term(agreement=True), torch.ones(4, 2), torch.ones(4, 3), 4)


def test_share_of_the_sum_that_mmengine_forms():
    losses = {'loss_cls': torch.tensor([1.0, 3.0]), 'aux_loss': [torch.tensor(1.0), torch.tensor(2.0)]}
    losses |= {'loss_sp': torch.tensor(5.0, requires_grad=True), 'accuracy': torch.tensor(50.0)}
    share = loss_share(losses['loss_sp'], losses)
    assert share == 0.5
    assert not share.requires_grad
    assert loss_share(torch.tensor(0.0), {'loss_sp': torch.tensor(0.0)}) == 0


def test_several_pairs_of_layers():
    student = {tap: torch.randn(6, 3) for tap in 'ab'}
    teacher = {'c': torch.randn(6, 4)}
    a_term = Term('sp', ('a', 'b'), ('c', 'c'), Loss())
    statistics = diagnose(a_term, student, teacher, 6)
    kinds = ('cka', 'collapse', 'weight')
    assert set(statistics) == {f'{kind}_sp_{pair}' for kind in kinds for pair in (0, 1)}
    torch.testing.assert_close(statistics['cka_sp_1'], linear_cka(student['b'], teacher['c'], debiased=True))
    assert statistics['weight_sp_0'] == statistics['weight_sp_1'] == 0.5


def test_pairs_that_were_not_chosen_have_a_weight_alone():
    student = {'a': torch.randn(6, 3)}
    teacher = {'b': torch.randn(6, 3), 'c': student['a'] + 1}
    a_term = Term('sp', ('a', 'a'), ('b', 'c'), Loss(), choice='cka')
    statistics = diagnose(a_term, student, teacher, 6)
    assert set(statistics) == {'cka_sp_1', 'collapse_sp_1', 'weight_sp_0', 'weight_sp_1'}
    assert (statistics['weight_sp_0'], statistics['weight_sp_1']) == (0, 1)
