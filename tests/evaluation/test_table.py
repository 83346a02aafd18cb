from mmkd_ext.evaluation.novel_class_metric import metric_table


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
