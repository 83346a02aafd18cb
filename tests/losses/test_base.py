"""What relation losses share: the weight, extras by name, and relations across processes."""

import inspect

import pytest
import torch
from mmengine.registry import MODELS
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmkd_ext.losses import LabelledRelationLoss, RelationLoss

GATHERING = ['SPLoss', 'CCKDLoss', 'IntraCategoryLoss', 'InterCategoryLoss', 'CategoryCentreLoss', 'HardDarkRankLoss']


class MeanGap(RelationLoss):
    """Something to weigh."""

    def relation(self, student, teacher):
        return (student - teacher).mean()


class LabelledGap(LabelledRelationLoss):
    """Something to weigh, of the samples of class 1."""

    def relation(self, student, teacher, labels):
        return (student - teacher)[labels == 1].mean()


def test_weight_times_relation():
    student, teacher = torch.randn(2, 5, 3).unbind()
    labels = torch.tensor([1, 0, 1, 2, 0])
    torch.testing.assert_close(MeanGap(0.5)(student, teacher), 0.5 * (student - teacher).mean())
    torch.testing.assert_close(
        LabelledGap(0.5)(student, teacher, labels=labels), 0.5 * (student - teacher)[[0, 2]].mean()
    )


def test_labels_on_another_device_are_brought():
    student = torch.ones(2, 3, device='meta')
    _, labels = MeanGap().joined(student, torch.tensor([1, 0]))
    assert labels.device.type == 'meta'


def test_print_shows_all_settings():
    assert repr(MeanGap(2.0, gather=True, order=3)) == 'MeanGap(loss_weight=2.0, gather=True, order=3)'


def run(name, gather, student, teacher, labels):
    loss = MODELS.build({'type': f'mmkd_ext.{name}', 'loss_weight': 3.0, 'gather': gather})
    takes_labels = 'labels' in inspect.signature(loss.forward).parameters
    return loss(student, teacher, **({'labels': labels} if takes_labels else {}))


def check_gathered(rank, folder, shares):
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    inputs, teacher = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)
    own = [x.split(shares)[rank] for x in (inputs, teacher, labels)]
    for name in GATHERING:
        model = nn.Linear(3, 4, dtype=torch.float64)
        replica = DistributedDataParallel(nn.Linear(3, 4, dtype=torch.float64))
        replica.module.load_state_dict(model.state_dict())
        loss = run(name, True, replica(own[0]), *own[1:])
        expected = run(name, False, model(inputs), teacher, labels)
        loss.backward()
        expected.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0, msg=name)
        torch.testing.assert_close(replica.module.weight.grad, model.weight.grad, rtol=1e-10, atol=1e-14, msg=name)
    distributed.destroy_process_group()


@pytest.mark.parametrize('shares', [(4, 4), (6, 2)], ids=str)
def test_gathered_update_is_that_of_one_process(tmp_path, shares):
    torch.multiprocessing.start_processes(check_gathered, (tmp_path, shares), nprocs=2, start_method='fork')


def test_gather_changes_nothing_in_one_process():
    student, teacher, labels = torch.randn(6, 3), torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    for name in GATHERING:
        assert torch.equal(run(name, True, student, teacher, labels), run(name, False, student, teacher, labels))
