from dataclasses import replace

import torch
from torch import nn

from mmkd_ext.distill import Term, WeightSchedule
from mmkd_ext.distill.report import table, term_table


def test_columns_are_aligned():
    lines = table(('a', 'bb'), [('longer', 'x'), ('y', 'z')]).splitlines()
    assert lines == ['  a       bb', '  longer  x', '  y       z']


class Loss(nn.Module):
    loss_weight = 25.0

    def forward(self, student, teacher):
        return student.sum()


def test_a_term_is_one_line():
    term = Term('sp', 'neck', 'gap[0]', Loss(), of='big', schedule=WeightSchedule(stop=9))
    header, line = term_table([term], {'sp': (torch.Size([4, 8]), torch.Size([4, 16]))}).splitlines()
    tokens = replace(term, tokens=16)
    assert 'Loss of 16 tokens' in term_table([tokens], {'sp': (torch.Size([4, 8]), torch.Size([4, 16]))})
    assert header.split() == ['term', 'student', 'teacher', 'loss', 'weight', 'schedule']
    assert ' '.join(line.split()) == 'loss_sp neck (4, 8) big: gap[0] (4, 16) Loss 25.0 stop at 9 (epochs)'
