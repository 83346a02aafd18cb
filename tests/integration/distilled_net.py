"""A small student and teacher under the DistillHook, and trainings of them."""

import copy

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn.functional import cross_entropy, dropout

from mmkd_ext.hooks import DistillHook


class Net(BaseModel):
    """A classifier of 3 features; dropout and batch statistics tell train mode from eval mode."""

    def __init__(self, width=4, num_classes=2, drop=0.1, criterion=True):
        super().__init__()
        self.drop = drop
        self.criterion = criterion
        self.num_forwards = 0
        self.backbone = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Tanh())
        self.head = nn.Linear(width, num_classes)
        self.never = nn.Identity()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.num_forwards += 1
        logits = self.head(dropout(self.backbone(inputs), self.drop, self.training))
        if mode != 'loss':
            return logits
        if not self.criterion:
            return {'loss_cls': logits.square().mean()}
        return {'loss_cls': cross_entropy(logits, torch.cat([sample.gt_label for sample in data_samples]))}


class GramLoss(nn.Module):
    """Squared difference of the Gram matrices; widths may differ."""

    def __init__(self, loss_weight=1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student, teacher):
        return self.loss_weight * gram_loss(student, teacher)


class SameClassLoss(nn.Module):
    def forward(self, student, teacher, *, labels):
        same = labels[:, None] == labels
        return (student @ student.T)[same].square().mean()


def gram_loss(student, teacher):
    return (student @ student.T - teacher @ teacher.T).square().mean()


TERMS = {'gram': {'tap': 'backbone', 'loss': {'type': GramLoss}}}
NUM_SAMPLES, BATCH = 16, 4


def samples():
    inputs = torch.randn(NUM_SAMPLES, 3, generator=torch.Generator().manual_seed(0))
    return [{'inputs': x, 'data_samples': BaseDataElement(gt_label=torch.tensor([int(x[0] > 0)]))} for x in inputs]


def save_teacher(folder):
    """Weights of a wider teacher whose batch statistics are not the initial ones; where they are."""
    teacher = Net(width=6)
    teacher(torch.randn(32, 3))
    torch.save({'state_dict': teacher.state_dict(), 'meta': {}}, folder / 'teacher.pth')
    return str(folder / 'teacher.pth')


def teacher_of(checkpoint, **model):
    return {'model': {'type': Net, 'width': 6, **model}, 'checkpoint': checkpoint}


def hook_config(checkpoint, terms=None):
    return {'type': 'mmkd_ext.DistillHook', 'teacher': teacher_of(checkpoint), 'terms': terms or TERMS}


def make_runner(case, work_dir, hooks=(), epochs=2, cfg=None, drop=0.1, log_interval=10, num_workers=0, **kwargs):
    return case.build(
        model={'type': Net, 'drop': drop},
        work_dir=work_dir,
        train_dataloader={
            'dataset': samples(),
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'batch_size': BATCH,
            'num_workers': num_workers,
            'collate_fn': {'type': 'default_collate'},
        },
        train_cfg=kwargs.pop('train_cfg', {'by_epoch': True, 'max_epochs': epochs}),
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}, **kwargs.pop('optim_wrapper', {})},
        custom_hooks=list(hooks),
        default_hooks={
            'checkpoint': {'type': 'CheckpointHook', 'interval': 1},
            'logger': log_interval and {'type': 'LoggerHook', 'interval': log_interval},
        },
        randomness={'seed': 0},
        cfg=cfg and Config(cfg),
        log_level='ERROR',
        **kwargs,
    )


def is_plain(student):
    return not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())


def the_hook(runner):
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, DistillHook))
    return hook


def logged(runner, name='train/loss_gram'):
    return runner.message_hub.get_scalar(name).data[0]


class Watch:
    """Keeps the teachers that a DistillHook builds and copies of their state, after the set-up."""

    def __init__(self, monkeypatch):
        set_up = DistillHook.before_train

        def before_train(hook, runner):
            set_up(hook, runner)
            self.teachers = [teacher.model for teacher in hook._distillation.teachers.values()]
            self.before = [copy.deepcopy(teacher.state_dict()) for teacher in self.teachers]

        monkeypatch.setattr(DistillHook, 'before_train', before_train)

    def assert_identical(self):
        for teacher, before in zip(self.teachers, self.before, strict=True):
            assert not teacher.training
            for name, value in teacher.state_dict().items():
                assert torch.equal(value, before[name]), name
            assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
