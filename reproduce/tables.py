"""The published tables that ``reproduce.py`` runs: which configs, in which order, and what the papers report.

A config that another row builds on (stage one, a teacher) is a row, too, and stands before it.
"""

import difflib
from typing import NamedTuple


class Row(NamedTuple):
    """One line of a table.

    Attributes:
        name: What the line is called.
        config: Path below ``configs``.
        published: Pairs of a number, in percent, and where it was published.
        remark: What one needs to know to compare them.
        metric: Name as the validation prints it; empty for the metric of the table.
    """

    name: str
    config: str
    published: tuple[tuple[float, str], ...] = ()
    remark: str = ''
    metric: str = ''


class Table(NamedTuple):
    """A published table: its title, the metric that it compares, what that is called, and its rows."""

    title: str
    metric: str
    metric_name: str
    rows: tuple[Row, ...]


OTHER_LOSS = 'its "CC" is another loss than CCKD'


def _discovery(novel: int, uno: float, uno_v2: float, crkd: float) -> Table:
    split = f'cifar100-{novel}_on-device.py'
    return Table(
        title=f'Novel class discovery on CIFAR-100, {100 - novel} known and {novel} novel classes, ResNet-18',
        metric='unlabelled_train/novel_acc',
        metric_name='novel accuracy, unlabelled training images (%)',
        rows=(
            Row(
                'stage one',
                f'supervised/supervised_resnet18_200e_{split}',
                remark='top-1 on test images of the known classes',
                metric='accuracy/top1',
            ),
            Row(
                'UNO',
                f'uno/uno_resnet18_500e_{split}',
                ((uno, 'Cr-KD paper'), (uno_v2, 'UNO v2 README')),
                'UNO v2 has over-clustering heads, this row has none',
            ),
            Row(
                'Cr-KD',
                f'crkd/crkd_resnet18_500e_{split}',
                ((crkd, 'Cr-KD paper'),),
                'weight 0.1, as the official code',
            ),
        ),
    )


def _distillation(teacher: str, student: str, names: tuple[str, str], published: dict[str, float]) -> Table:
    def row(name: str, method: str, key: str = '', remark: str = '') -> Row:
        config = f'{method.partition("-")[0]}/{method}_{teacher if key == "teacher" else student}_240e_cifar100.py'
        return Row(name, config, ((published[key], 'RepDistiller'),) if key else (), remark)

    return Table(
        title=f'Distillation on CIFAR-100, {names[0]} to {names[1]}',
        metric='accuracy/top1',
        metric_name='top-1, test images (%)',
        rows=(
            row(f'teacher, {names[0]}', 'supervised', 'teacher'),
            row(f'student alone, {names[1]}', 'supervised', 'student'),
            row('KD', 'kd', 'kd'),
            row('RKD', 'rkd', 'rkd'),
            row('SP', 'sp', 'sp'),
            row('CCKD, CUR batches', 'cur-cckd', 'cc', OTHER_LOSS),
            row('CSKD', 'cskd'),
            row('KD + RKD', 'rkd-kd'),
            row('KD + SP', 'sp-kd'),
            row('KD + CCKD, CUR batches', 'cur-cckd-kd'),
            row('KD + CSKD', 'cskd-kd'),
        ),
    )


TABLES: dict[str, Table] = {
    'ncd-cifar100-20': _discovery(20, uno=90.4, uno_v2=90.6, crkd=91.2),
    'ncd-cifar100-50': _discovery(50, uno=60.4, uno_v2=60.8, crkd=65.3),
    'kd-resnet56-resnet20': _distillation(
        'resnet56',
        'resnet20',
        ('ResNet-56', 'ResNet-20'),
        {'teacher': 72.34, 'student': 69.06, 'kd': 70.66, 'sp': 69.67, 'cc': 69.63, 'rkd': 69.61},
    ),
    'kd-wrn40-2-wrn16-2': _distillation(
        'wrn40-2',
        'wrn16-2',
        ('WRN-40-2', 'WRN-16-2'),
        {'teacher': 75.61, 'student': 73.26, 'kd': 74.92, 'sp': 73.83, 'cc': 73.56, 'rkd': 73.35},
    ),
}


def find_table(name: str) -> Table:
    """Return the table of this name.

    Raises:
        KeyError: There is none.
    """
    if name not in TABLES:
        near = difflib.get_close_matches(name, TABLES) or list(TABLES)
        raise KeyError(f'reproduce.py: expected one of {sorted(TABLES)} but got {name!r}; choose {" or ".join(near)}')
    return TABLES[name]
