from types import SimpleNamespace

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import nn
from torch.utils.data import Dataset

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.heads import NovelHead
from mmkd_ext.hooks import BestHeadHook, ExactResumeHook

HEAD = {
    'type': 'mmkd_ext.NovelHead',
    'in_channels': 4,
    'num_classes': 3,
    'num_heads': 2,
    'hidden_channels': 5,
    'embed_channels': 4,
}


class _Digits(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        from mmengine.structures import BaseDataElement

        sample = BaseDataElement(gt_label=torch.tensor([index % 3 - 1]))
        return {'inputs': [torch.randn(3, 8, 8), torch.randn(3, 8, 8)], 'data_samples': sample}


def _run(case, work_dir, novel_head):
    runner = case.build(
        model={
            'type': 'mmkd_ext.NCDClassifier',
            'backbone': {'type': 'mmkd_ext.ConvNet', 'in_channels': 3, 'channels': (4,)},
            'neck': {'type': 'mmpretrain.GlobalAveragePooling'},
            'known_head': {'type': 'mmkd_ext.CosineHead', 'in_channels': 4, 'num_classes': 2},
            'novel_head': novel_head,
        },
        work_dir=work_dir,
        train_dataloader={
            'dataset': _Digits(),
            'batch_size': 4,
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'collate_fn': {'type': 'default_collate'},
        },
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        train_cfg={'by_epoch': True, 'max_epochs': 2},
        default_hooks={'checkpoint': {'type': 'CheckpointHook', 'interval': 1}},
        custom_hooks=[{'type': 'mmkd_ext.BestHeadHook'}],
    )
    runner.train()


def test_checkpoint_holds_the_objective_of_its_own_epoch(case, tmp_path):
    _run(case, tmp_path, HEAD)
    sums = []
    for epoch in (1, 2):
        state = load_checkpoint_safely(tmp_path / f'epoch_{epoch}.pth')['state_dict']
        assert state['novel_head.objective_count'] == 3
        sums.append(state['novel_head.objective_sum'])
    assert not torch.equal(*sums)


def test_model_without_novel_head_is_left_alone(case, tmp_path):
    _run(case, tmp_path, None)
    assert (tmp_path / 'epoch_2.pth').exists()


def _runner(model):
    return SimpleNamespace(model=model, hooks=[])


@pytest.fixture
def head():
    head = NovelHead(4, 3, num_heads=2, hidden_channels=5, embed_channels=4)
    head.update_objective(torch.tensor([4.0, 2.0]))
    return head


def test_an_epoch_resumed_in_the_middle_keeps_its_sums(head):
    runner = _runner(nn.ModuleDict({'novel_head': head}))
    runner.hooks.append(ExactResumeHook())
    runner.hooks[0].first_batch = 2
    BestHeadHook().before_train_epoch(runner)
    assert head.objective_count == 1
    runner.hooks[0].first_batch = 0
    BestHeadHook().before_train_epoch(runner)
    assert head.objective_count == 0


def test_reset_reaches_a_wrapped_model_and_every_head(head, tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    model = nn.ModuleDict({'novel_head': head, 'overcluster_head': NovelHead(4, 6, 2, 5, 4)})
    model['overcluster_head'].update_objective(torch.ones(2))
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    BestHeadHook().before_train_epoch(_runner(wrapped))
    assert head.objective_count == 0
    assert model['overcluster_head'].objective_count == 0


def test_one_process_keeps_its_statistics(head):
    BestHeadHook().after_train_epoch(_runner(nn.ModuleDict({'novel_head': head})))
    assert head.mean_objective.tolist() == [4, 2]


def _two_steps_of_a_rank(rank, folder):
    """Rank 0 takes one step and would choose head 1, rank 1 takes three; together they choose head 0."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    head = NovelHead(4, 3, num_heads=2, hidden_channels=5, embed_channels=4)
    for _ in range([1, 3][rank]):
        head.update_objective(torch.tensor([[4.0, 2.0], [0.0, 2.0]][rank]))
    BestHeadHook().after_train_epoch(_runner(nn.ModuleDict({'novel_head': head})))
    assert head.mean_objective.tolist() == [1.0, 2.0], head.mean_objective
    assert head.best_head == 0
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_processes_agree_on_the_mean_over_all_of_their_steps(tmp_path):
    torch.multiprocessing.start_processes(_two_steps_of_a_rank, (tmp_path,), nprocs=2, start_method='fork')


def test_runs_before_the_checkpoint_is_written():
    from mmengine.hooks import CheckpointHook
    from mmengine.runner import get_priority

    assert get_priority(BestHeadHook.priority) < get_priority(CheckpointHook.priority)
