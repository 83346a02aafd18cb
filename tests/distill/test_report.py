from dataclasses import replace

import torch
from torch import nn

from mmkd_ext.distill import Rows, Term, WeightSchedule
from mmkd_ext.distill.report import term_table
from mmkd_ext.io import table


def test_columns_are_aligned():
    lines = table(('a', 'bb'), [('longer', 'x'), ('y', 'z')]).splitlines()
    assert lines == ['  a       bb', '  longer  x', '  y       z']


class Loss(nn.Module):
    loss_weight = 25.0

    def forward(self, student, teacher):
        return student.sum()


def test_a_term_is_one_line():
    term = Term('sp', 'neck', 'gap[0]', Loss(), of='big', schedule=WeightSchedule(stop=9))
    shapes = {'sp': [(torch.Size([4, 8]), torch.Size([4, 16]))]}
    header, line = term_table([term], shapes).splitlines()
    assert 'Loss of 16 tokens' in term_table([replace(term, rows=Rows(tokens=16))], shapes)
    assert header.split() == ['term', 'student', 'teacher', 'loss', 'weight', 'schedule']
    assert ' '.join(line.split()) == 'loss_sp neck (4, 8) big: gap[0] (4, 16) Loss 25.0 stop at 9 (epochs)'


def test_a_pair_of_layers_is_one_line():
    term = Term('sp', ('a', 'b'), ('c', 'c'), Loss(), choice='cka')
    shapes = [(torch.Size([4, n]), torch.Size([4, 9])) for n in (2, 3)]
    lines = [' '.join(line.split()) for line in term_table([term], {'sp': shapes}).splitlines()]
    assert lines[1:] == [
        'loss_sp_0 a (4, 2) teacher: c (4, 9) Loss, cka choice 25.0 constant',
        'loss_sp_1 b (4, 3) teacher: c (4, 9) Loss, cka choice 25.0 constant',
    ]
