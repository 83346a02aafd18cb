import json
import os

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import METRICS, MODELS
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn.functional import cross_entropy

from mmkd_ext.hooks import DistillHook
from runners import runner_case

TERMS = {'kd': {'tap': 'head', 'loss': {'type': 'mmkd_ext.SoftTargetLoss', 'temperature': 2.0}}}
BATCHES = 4


@MODELS.register_module(force=True)
class GenerationNet(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh())
        self.head = nn.Linear(4, 2)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = self.head(self.backbone(inputs))
        if mode == 'loss':
            return {'loss_cls': cross_entropy(logits, torch.cat([sample.gt_label for sample in data_samples]))}
        return logits if mode == 'tensor' else data_samples


@METRICS.register_module(force=True)
class CountedValidations(BaseMetric):
    """The number of validations so far."""

    count = 0

    def process(self, data_batch, data_samples):
        self.results.append(None)

    def compute_metrics(self, results):
        self.count += 1
        return {'acc': self.count}


class Log(Hook):
    """Copies of the student's and teacher's weights at the start of every step, and its losses."""

    priority = 'LOWEST'

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.steps = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop_at:
            raise KeyboardInterrupt
        teachers = [hook for hook in runner.hooks if isinstance(hook, DistillHook)]
        teacher = teachers[0]._distillation.teachers['teacher'].model if teachers else None
        self.steps.append(
            {
                'student': copy_of(getattr(runner.model, 'module', runner.model)),
                'teacher': copy_of(teacher) if teacher else None,
                'is_frozen': teacher
                and not teacher.training
                and not any(p.requires_grad for p in teacher.parameters()),
                'lr': runner.optim_wrapper.get_lr()['lr'][0],
                'momentum': len(runner.optim_wrapper.optimizer.state),
            }
        )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.steps[-1]['losses'] = {name: value.item() for name, value in outputs.items()}


def copy_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def samples():
    inputs = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    return [{'inputs': x, 'data_samples': BaseDataElement(gt_label=torch.tensor([int(x[0] > 0)]))} for x in inputs]


def train(
    case,
    work_dir,
    log,
    generations=3,
    epochs=6,
    by_epoch=True,
    resume=False,
    hooks=(),
    load_from=None,
    more_cfg=None,
    launcher='none',
    **hook,
):
    loader = {
        'dataset': samples(),
        'sampler': {'type': 'DefaultSampler', 'shuffle': True},
        'batch_size': 16 // BATCHES,
        'collate_fn': {'type': 'default_collate'},
    }
    loop = {'max_epochs': epochs} if by_epoch else {'max_iters': epochs * BATCHES, 'val_interval': BATCHES}
    if generations:
        hooks = [{'type': 'mmkd_ext.GenerationHook', 'num_generations': generations, 'terms': TERMS, **hook}, *hooks]
    cfg = Config({'model': {'type': 'GenerationNet'}, 'load_from': load_from, 'resume': resume, **(more_cfg or {})})
    runner = case.build(
        model={'type': 'GenerationNet'},
        work_dir=work_dir,
        train_dataloader=loader,
        val_dataloader=loader,
        val_evaluator={'type': 'CountedValidations'},
        train_cfg={'by_epoch': by_epoch, **loop},
        val_cfg={},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}},
        param_scheduler=[
            {'type': 'LinearLR', 'start_factor': 0.5, 'by_epoch': False, 'begin': 0, 'end': 3},
            {'type': 'MultiStepLR', 'milestones': [1 if by_epoch else BATCHES], 'by_epoch': by_epoch},
        ],
        custom_hooks=[log, *hooks],
        default_hooks={
            'checkpoint': {'type': 'CheckpointHook', 'interval': 1 if by_epoch else BATCHES, 'by_epoch': by_epoch}
        },
        randomness={'seed': 0},
        load_from=load_from,
        resume=resume,
        launcher=launcher,
        cfg=cfg,
        log_level='ERROR',
    )
    runner.train()
    return runner


@pytest.fixture(scope='module')
def steps(tmp_path_factory):
    """All steps of three generations of two epochs each, and the folder of the run."""
    log, folder = Log(), tmp_path_factory.mktemp('whole')
    with runner_case() as case:
        train(case, folder, log)
    assert len(log.steps) == 6 * BATCHES
    return log.steps, folder


def state(path):
    return torch.load(path, weights_only=False)['state_dict']


# Three generations


def test_each_generation_is_taught_by_the_finished_student_before_it(steps):
    steps, folder = steps
    length = 2 * BATCHES
    assert all(step['teacher'] is None and set(step['losses']) == {'loss', 'loss_cls'} for step in steps[:length])
    for generation in (1, 2):
        finished = state(folder / f'epoch_{2 * generation}.pth')
        assert same(finished, state(folder / f'generation_{generation - 1}.pth'))
        for step in steps[generation * length : (generation + 1) * length]:
            assert same(step['teacher'], finished)
            assert step['is_frozen']
            assert step['losses']['loss_kd'] > 0
    assert same(state(folder / 'epoch_6.pth'), state(folder / 'generation_2.pth'))


def test_students_start_from_different_new_weights(steps):
    steps, _ = steps
    starts = [step['student'] for step in steps[:: 2 * BATCHES]]
    assert not any(torch.equal(starts[i]['head.weight'], starts[j]['head.weight']) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert all(start['backbone.1.num_batches_tracked'] == 0 for start in starts)
    assert all(torch.equal(start['backbone.1.running_var'], torch.ones(4)) for start in starts)


def test_optimizer_and_schedules_restart(steps):
    steps, _ = steps
    rates = torch.tensor([step['lr'] for step in steps]).view(3, 2 * BATCHES)
    warm_up = [0.05, 0.075, 0.1, 0.1]
    torch.testing.assert_close(rates, torch.tensor([warm_up + [0.01] * BATCHES] * 3))
    assert [steps[generation * 2 * BATCHES]['momentum'] for generation in range(3)] == [0, 0, 0]
    assert steps[1]['momentum'] > 0


def test_weights_can_be_kept(case, tmp_path):
    log = Log()
    train(case, tmp_path, log, generations=2, epochs=2, reinit=False)
    assert same(log.steps[BATCHES]['student'], log.steps[BATCHES]['teacher'])
    assert log.steps[BATCHES]['losses']['loss_cls'] < log.steps[0]['losses']['loss_cls']


def test_first_generation_equals_a_run_without_the_hook(case, tmp_path, steps):
    alone = Log()
    train(case, tmp_path / 'alone', alone, generations=2, epochs=4)
    assert all(
        same(left['student'], right['student']) for left, right in zip(alone.steps[:8], steps[0][:8], strict=True)
    )


def test_metrics_of_every_generation_are_kept(steps):
    _, folder = steps
    assert json.loads((folder / 'generations.json').read_text()) == {
        '0': {'epoch': 2, 'metrics': {'acc': 2}},
        '1': {'epoch': 4, 'metrics': {'acc': 4}},
        '2': {'epoch': 6, 'metrics': {'acc': 6}},
    }


def test_iterations_count_where_the_loop_counts_them(case, tmp_path):
    log = Log()
    train(case, tmp_path, log, generations=2, epochs=2, by_epoch=False)
    assert [step['teacher'] is None for step in log.steps] == [True] * BATCHES + [False] * BATCHES
    assert same(log.steps[-1]['teacher'], state(tmp_path / f'iter_{BATCHES}.pth'))
    assert json.loads((tmp_path / 'generations.json').read_text())['1']['iter'] == 2 * BATCHES


def test_average_of_weights_teaches_and_restarts(case, tmp_path):
    log, ema = Log(), {'type': 'EMAHook', 'momentum': 0.5}
    runner = train(case, tmp_path, log, generations=2, epochs=2, hooks=[ema])
    assert same(log.steps[-1]['teacher'], state(tmp_path / 'epoch_1.pth'))
    assert not torch.equal(log.steps[-1]['teacher']['head.weight'], log.steps[BATCHES - 1]['student']['head.weight'])
    (average,) = (hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model'))
    assert average.steps == BATCHES


def test_schedule_of_a_term_counts_from_the_start_of_each_generation(case, tmp_path):
    log = Log()
    term = {**TERMS['kd'], 'schedule': {'begin': 1}}
    train(case, tmp_path, log, generations=3, epochs=6, terms={'kd': term})
    is_on = [any(step['losses'].get('loss_kd', 0) for step in log.steps[i : i + BATCHES]) for i in range(0, 24, 4)]
    assert is_on == [False, False, False, True, False, True]


def test_compiled_student_learns_from_its_teacher(case, tmp_path):
    log = Log()
    train(case, tmp_path, log, generations=2, epochs=2, more_cfg={'compile': {'backend': 'eager'}})
    assert all('loss_kd' not in step['losses'] for step in log.steps[:BATCHES])
    assert all(step['losses']['loss_kd'] > 0 for step in log.steps[BATCHES:])


def _train_replica(rank, case, folder):
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    log = Log()
    wrapper = {'type': 'MMDistributedDataParallel', 'device_ids': None, 'broadcast_buffers': False}
    train(
        case, folder / 'run', log, generations=2, epochs=2, launcher='pytorch', more_cfg={'model_wrapper_cfg': wrapper}
    )
    torch.save(log.steps, folder / f'rank_{rank}.pth')
    dist.destroy_process_group()


def test_two_processes_have_the_same_students_and_teachers(case, tmp_path):
    torch.multiprocessing.start_processes(_train_replica, (case, tmp_path), nprocs=2, start_method='fork')
    left, right = (torch.load(tmp_path / f'rank_{rank}.pth') for rank in range(2))
    for mine, other in zip(left, right, strict=True):
        parameters = dict(GenerationNet().named_parameters())
        assert all(torch.equal(mine['student'][name], other['student'][name]) for name in parameters)
    assert all(same(mine['teacher'], other['teacher']) for mine, other in zip(left[2:], right[2:], strict=True))
    assert not torch.equal(left[2]['student']['head.weight'], left[2]['teacher']['head.weight'])


# Resume


@pytest.mark.parametrize('stop_at', [1, 2, 5])
def test_killed_run_goes_on_as_if_nothing_had_happened(case, tmp_path, steps, stop_at):
    folder = tmp_path / f'killed_{stop_at}'
    with pytest.raises(KeyboardInterrupt):
        train(case, folder, Log(stop_at * BATCHES + 1))
    resumed = Log()
    train(case, folder, resumed, resume=True)
    for mine, whole in zip(resumed.steps, steps[0][stop_at * BATCHES :], strict=True):
        assert same(mine['student'], whole['student'])
        assert (mine['teacher'] is None) == (whole['teacher'] is None)
        assert mine['teacher'] is None or same(mine['teacher'], whole['teacher'])
        assert mine['lr'] == whole['lr']
        assert mine['losses'] == whole['losses']
    assert same(state(folder / 'generation_2.pth'), state(steps[1] / 'generation_2.pth'))
    epochs = {name: entry['epoch'] for name, entry in json.loads((folder / 'generations.json').read_text()).items()}
    assert epochs == {'0': 2, '1': 4, '2': 6}


def test_layers_chosen_in_a_generation_stay_chosen(case, tmp_path):
    pairs = [('backbone', 'backbone'), ('backbone', 'head'), ('head', 'backbone'), ('head', 'head')]
    terms = {'sp': {'pairs': pairs, 'choice': 'adaptive', 'loss': {'type': 'mmkd_ext.SPLoss', 'loss_weight': 1.0}}}
    whole, resumed = Log(), Log()
    train(case, tmp_path / 'whole', whole, terms=terms)
    with pytest.raises(KeyboardInterrupt):
        train(case, tmp_path / 'parts', Log(3 * BATCHES + 1), terms=terms)
    train(case, tmp_path / 'parts', resumed, resume=True, terms=terms)
    for mine, other in zip(resumed.steps, whole.steps[3 * BATCHES :], strict=True):
        assert mine['losses'] == other['losses']
        assert same(mine['student'], other['student'])


def killed_in_second_generation(case, folder):
    with pytest.raises(KeyboardInterrupt):
        train(case, folder, Log(3 * BATCHES))
    return folder / 'generation_0.pth'


def test_missing_teacher_is_named(case, tmp_path):
    os.remove(killed_in_second_generation(case, tmp_path))
    with pytest.raises(FileNotFoundError, match=r'generation 1 .*generation_0.pth'):
        train(case, tmp_path, Log(), resume=True)


def test_changed_teacher_is_refused(case, tmp_path):
    file = killed_in_second_generation(case, tmp_path)
    weights = state(file)
    weights['head.bias'] += 1
    torch.save({'state_dict': weights}, file)
    with pytest.raises(ValueError, match=r'generation_0.pth .*changed'):
        train(case, tmp_path, Log(), resume=True)


# Bad configs


def test_needs_two_generations(case, tmp_path):
    with pytest.raises(ValueError, match=r'GenerationHook: .*2 generations .*got 1'):
        train(case, tmp_path, Log(), generations=1)


def test_length_is_a_multiple(case, tmp_path):
    with pytest.raises(ValueError, match=r'max_epochs .*3 generations .*got 4'):
        train(case, tmp_path, Log(), epochs=4)


def test_load_from_is_refused(case, tmp_path):
    torch.save({'state_dict': GenerationNet().state_dict()}, tmp_path / 'start.pth')
    with pytest.raises(ValueError, match=r'load_from .*start.pth.*init_cfg='):
        train(case, tmp_path, Log(), load_from=str(tmp_path / 'start.pth'))


def test_bad_tap_is_found_before_the_first_step(case, tmp_path):
    log = Log()
    with pytest.raises(KeyError, match='haed'):
        train(case, tmp_path, log, terms={'kd': {**TERMS['kd'], 'tap': 'haed'}})
    assert log.steps == []
