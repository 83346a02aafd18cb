"""A run that is interrupted and resumed is compared with one that is not: every tensor, bit for bit."""

import random

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.hooks import ExactResumeHook
from mmkd_ext.hooks.resume_hook import resumed_batches

NUM_SAMPLES, BATCH_SIZE, BATCHES, EPOCHS = 30, 4, 7, 4
EVERY_ITERATION = {'by_epoch': False, 'interval': 1}


class Noisy(Dataset):
    """Augmented by all three global generators; the first half is labelled."""

    labelled = np.arange(NUM_SAMPLES) < NUM_SAMPLES // 2

    def __len__(self):
        return NUM_SAMPLES

    def get_gt_labels(self):
        return np.arange(NUM_SAMPLES) % 3

    def __getitem__(self, index):
        image = torch.full((3,), float(index)) / NUM_SAMPLES
        noise = [random.random(), np.random.random(), torch.rand(()).item()]  # noqa: NPY002
        return {'inputs': image + torch.tensor(noise, dtype=torch.float32), 'index': index}


class Dropout(BaseModel):
    """Draws from torch's generator in training, and keeps batch statistics."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, inputs, index, mode='tensor'):
        outputs = self.net(inputs)
        return {'loss': outputs.square().mean()} if mode == 'loss' else [outputs.sum()]


class Sum(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(float(data_samples[0]))

    def compute_metrics(self, results):
        return {'sum': sum(results)}


class Drawing(Hook):
    """Draws random numbers outside of iterations."""

    def before_train_epoch(self, runner):
        torch.rand(3)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        random.random(), torch.rand(2)


class Journal(Hook):
    """Writes down what training sees, and is cut off after an iteration or in a validation."""

    priority = 'LOWEST'

    def __init__(self, stop=None, in_validation=None):
        self.stop, self.in_validation, self.indices, self.validations = stop, in_validation, [], []

    def before_train_epoch(self, runner):
        self.epoch_began_with = resumed_batches(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.indices.append((runner.epoch, runner.iter, batch_idx, data_batch['index'].tolist()))
        if runner.iter + 1 == self.stop:
            raise KeyboardInterrupt

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.in_validation:
            raise KeyboardInterrupt

    def after_val_epoch(self, runner, metrics=None):
        self.validations.append((runner.iter, metrics))


def _settings(by_epoch=True, sampler='DefaultSampler', checkpoints=None, batch_sampler=None, num_workers=0, **options):
    train = {'by_epoch': True, 'max_epochs': EPOCHS, 'val_interval': 2}
    if not by_epoch:
        train = {'by_epoch': False, 'max_iters': EPOCHS * BATCHES, 'val_interval': 9}
    loader = {
        'batch_size': BATCH_SIZE,
        'num_workers': num_workers,
        'dataset': Noisy(),
        'collate_fn': {'type': 'default_collate'},
    }
    sampling = {'batch_sampler': batch_sampler} if batch_sampler else {'drop_last': True}
    return {
        'train_dataloader': {**loader, 'sampler': {'type': sampler, 'shuffle': True}, **sampling, **options},
        'val_dataloader': {**loader, 'num_workers': 0, 'sampler': {'type': 'DefaultSampler', 'shuffle': False}},
        'val_cfg': {},
        'val_evaluator': Evaluator(Sum()),
        'train_cfg': train,
        'optim_wrapper': {'optimizer': {'type': 'Adam', 'lr': 0.05}, 'accumulative_counts': 2},
        'param_scheduler': [
            {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 12},
            {'type': 'StepLR', 'step_size': 1, 'gamma': 0.7, 'by_epoch': by_epoch},
        ],
        'default_hooks': {
            'logger': {'type': 'LoggerHook', 'interval': 3},
            'checkpoint': {
                'type': 'mmkd_ext.AtomicCheckpointHook',
                **(checkpoints or {'by_epoch': False, 'interval': 1}),
            },
            'exact_resume': {'type': 'mmkd_ext.ExactResumeHook'},
        },
        'randomness': {'seed': 5},
    }


def _train(case, folder, resume=False, hook=None, settings=None, **kwargs):
    journal = Journal(**kwargs)
    torch.manual_seed(12345 if resume else 0)  # a resumed process begins in another state
    runner = case.build(
        model=Dropout(),
        work_dir=folder,
        custom_hooks=[journal, Drawing(), {'type': 'EMAHook', 'momentum': 0.1}],
        resume=resume,
        **settings,
    )
    if journal.stop or journal.in_validation:
        with pytest.raises(KeyboardInterrupt):
            runner.train()
    else:
        runner.train()
    return journal


def _last(folder):
    return load_checkpoint_safely((folder / 'last_checkpoint').read_text())


def _assert_same(left, right, path=''):
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            _assert_same(left[key], right[key], f'{path}/{key}')
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for number, pair in enumerate(zip(left, right, strict=True)):
            _assert_same(*pair, f'{path}/{number}')
    else:
        assert left == right, path


def _assert_same_run(folder, resumed_folder):
    whole, resumed = _last(folder), _last(resumed_folder)
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'exact_resume'):
        _assert_same(whole[part], resumed[part], part)
    assert whole['meta']['iter'] == resumed['meta']['iter']
    for name, log in whole['message_hub']['log_scalars'].items():
        if 'time' not in name:
            np.testing.assert_array_equal(log.data, resumed['message_hub']['log_scalars'][name].data, err_msg=name)


def _compare(case, tmp_path, settings, **interruption):
    """Train in one go, then in two; return what the second of the two saw."""
    whole = _train(case, tmp_path / 'whole', settings=settings())
    first = _train(case, tmp_path / 'parts', settings=settings(), **interruption)
    second = _train(case, tmp_path / 'parts', settings=settings(), resume=True)
    known = {entry[1]: entry for entry in first.indices + second.indices}
    assert list(known.values()) == whole.indices
    assert dict(first.validations + second.validations) == dict(whole.validations)
    _assert_same_run(tmp_path / 'whole', tmp_path / 'parts')
    return second


QUOTA = {'type': 'mmkd_ext.QuotaBatchSampler', 'num_unlabelled': 2}
CLASSES = {'type': 'mmkd_ext.ClassUniformBatchSampler', 'samples_per_group': 2}
WORKERS = [{'num_workers': 0}, {'num_workers': 2}, {'num_workers': 2, 'persistent_workers': True}]


@pytest.mark.parametrize('options', WORKERS, ids=['main process', 'workers', 'persistent workers'])
@pytest.mark.parametrize('batch_sampler', [None, QUOTA], ids=['sampler', 'batch sampler'])
def test_middle_of_an_epoch(case, tmp_path, options, batch_sampler):
    second = _compare(case, tmp_path, lambda: _settings(batch_sampler=batch_sampler, **options), stop=BATCHES + 3)
    assert second.indices[0][:3] == (1, BATCHES + 3, 3)


def test_middle_of_an_epoch_of_class_uniform_batches(case, tmp_path):
    _compare(case, tmp_path, lambda: _settings(batch_sampler=CLASSES), stop=BATCHES + 3)


@pytest.mark.parametrize('options', WORKERS[:2], ids=['main process', 'workers'])
@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
def test_loop_that_counts_iterations(case, tmp_path, sampler, options):
    second = _compare(case, tmp_path, lambda: _settings(by_epoch=False, sampler=sampler, **options), stop=BATCHES + 3)
    assert second.indices[0][1] == BATCHES + 3


def test_batch_sampler_in_a_loop_that_counts_iterations(case, tmp_path):
    _compare(case, tmp_path, lambda: _settings(by_epoch=False, batch_sampler=QUOTA), stop=2 * BATCHES)


@pytest.mark.parametrize('stop', [2 * BATCHES - 1, 2 * BATCHES, EPOCHS * BATCHES])
def test_end_of_an_epoch_before_its_hooks_ran(case, tmp_path, stop):
    """The last iteration's checkpoint comes before whatever happens after the epoch, validation included."""
    _compare(case, tmp_path, _settings, stop=stop)


@pytest.mark.parametrize('epoch', [2, EPOCHS])
@pytest.mark.parametrize('checkpoints', [{'interval': 1}, {'interval': 1, 'save_best': 'sum', 'rule': 'less'}])
def test_validation_that_was_cut_off_comes_first(case, tmp_path, epoch, checkpoints):
    second = _compare(case, tmp_path, lambda: _settings(checkpoints=checkpoints), in_validation=epoch * BATCHES)
    assert second.validations[0][0] == epoch * BATCHES


def test_validation_that_was_cut_off_in_a_loop_that_counts_iterations(case, tmp_path):
    second = _compare(case, tmp_path, lambda: _settings(by_epoch=False), in_validation=9)
    assert second.validations[0][0] == 9


def test_checkpoint_of_an_epoch(case, tmp_path):
    """The new epoch's first iteration was trained once and is repeated."""
    second = _compare(case, tmp_path, lambda: _settings(checkpoints={'interval': 1}), stop=2 * BATCHES + 1)
    assert second.indices[0][:3] == (2, 2 * BATCHES, 0)


def test_hooks_know_how_much_of_the_epoch_was_done(case, tmp_path):
    _train(case, tmp_path, settings=_settings(), stop=BATCHES + 3)
    seen = _train(case, tmp_path, settings=_settings(), resume=True, stop=2 * BATCHES - 1)
    assert seen.epoch_began_with == 3
    assert _train(case, tmp_path, settings=_settings(), resume=True).epoch_began_with == 0


def test_batches_do_not_depend_on_the_number_of_workers(case, tmp_path):
    for workers in (0, 2):
        _train(case, tmp_path / f'{workers}', settings=_settings(num_workers=workers))
    _assert_same_run(tmp_path / '0', tmp_path / '2')


def test_training_does_not_depend_on_validation(case, tmp_path):
    _train(case, tmp_path / 'with', settings=_settings())
    without = {'val_dataloader': None, 'val_cfg': None, 'val_evaluator': None}
    _train(case, tmp_path / 'without', settings={**_settings(), **without})
    _assert_same(_last(tmp_path / 'with')['state_dict'], _last(tmp_path / 'without')['state_dict'])


def test_order_without_a_seed_in_the_config(case, tmp_path):
    """mmengine draws a new seed for the samplers before it reads that of the checkpoint."""
    settings = {**_settings(), 'randomness': {'seed': None}}
    first = _train(case, tmp_path, settings=settings, stop=BATCHES + 3)
    second = _train(case, tmp_path, settings={**_settings(), 'randomness': {'seed': None}}, resume=True)
    epoch = [index for entry in (first.indices + second.indices)[BATCHES : 2 * BATCHES] for index in entry[3]]
    assert len(set(epoch)) == BATCHES * BATCH_SIZE


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'batch_size': 3}, '1 processes with 10 batches each but the checkpoint is of 1 with 7'),
        (None, "a checkpoint with 'exact_resume' of all processes but this one has none"),
    ],
)
def test_what_does_not_fit_is_said(case, tmp_path, caplog, change, message):
    first, then = _settings(), _settings(**(change or {}))
    if change is None:
        del first['default_hooks']['exact_resume']
    _train(case, tmp_path, settings=first, stop=BATCHES + 3)
    with caplog.at_level('WARNING', logger='mmengine'):
        _train(case, tmp_path, settings=then, resume=True, stop=BATCHES + 4)
    log = ''.join(path.read_text() for path in tmp_path.rglob('*.log'))
    assert f'ExactResumeHook: expected {message}' in log


@pytest.mark.parametrize(
    ('schedule', 'longer', 'is_told'),
    [
        ({'type': 'CosineAnnealingLR', 'T_max': EPOCHS, 'end': EPOCHS}, EPOCHS + 2, True),
        ({'type': 'CosineAnnealingLR', 'T_max': EPOCHS, 'end': EPOCHS}, EPOCHS, False),
        ({'type': 'StepLR', 'step_size': 1}, EPOCHS + 2, True),  # the Runner lets it end with the run
        ({'type': 'LinearLR', 'start_factor': 0.1, 'end': 1}, EPOCHS + 2, False),
    ],
)
def test_a_run_made_longer_says_that_its_schedule_ends(case, tmp_path, schedule, longer, is_told):
    first, then = _settings(), _settings()
    first['param_scheduler'] = [schedule]
    # The config follows the length of the run, which does not help: mmengine takes the schedule of the checkpoint.
    ends = {name: longer for name in ('T_max', 'end') if schedule.get(name) == EPOCHS}
    then['param_scheduler'] = [{**schedule, **ends}]
    then['train_cfg'] = {**then['train_cfg'], 'max_epochs': longer}
    _train(case, tmp_path, settings=first, stop=BATCHES + 3)
    _train(case, tmp_path, settings=then, resume=True, stop=BATCHES + 4)
    log = ''.join(path.read_text() for path in tmp_path.rglob('*.log'))
    told = f'made longer, {longer} in the place of {EPOCHS}, and mmengine goes on with the schedules of the checkpoint'
    assert (told in log) == is_told


class Stream(IterableDataset):
    def __iter__(self):
        yield from ({'inputs': torch.zeros(3), 'index': i} for i in range(8))


def test_a_stream_is_refused(case, tmp_path):
    settings = _settings()
    settings['train_dataloader'] = torch.utils.data.DataLoader(Stream(), batch_size=4)
    settings['optim_wrapper'].pop('accumulative_counts'), settings.update(param_scheduler=None)
    settings['train_cfg'] = {'by_epoch': False, 'max_iters': 2}
    with pytest.raises(TypeError, match=r'ExactResumeHook: .*__getitem__ .*got Stream'):
        _train(case, tmp_path, settings=settings)


def test_a_run_without_the_hook_resumes_no_batches():
    class Runner:
        hooks = ()

    assert resumed_batches(Runner) == 0
    assert ExactResumeHook().first_batch == 0
