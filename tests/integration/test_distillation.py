"""The Runner trains with a DistillHook as it does without one, whatever else it is told to do."""

import copy
import logging
import os
import re
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from mmengine.optim import OptimWrapper
from torch.nn.functional import cross_entropy

from distilled_net import (
    TERMS,
    GramLoss,
    Net,
    Watch,
    gram_loss,
    hook_config,
    is_plain,
    logged,
    make_runner,
    samples,
    save_teacher,
    teacher_of,
    the_hook,
)
from mmkd_ext.distill import FrozenTeacher


@pytest.fixture
def checkpoint(tmp_path):
    return save_teacher(tmp_path)


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


def test_training_changes_neither_teacher_nor_the_form_of_the_student(case, tmp_path, checkpoint, watch):
    runner = make_runner(case, tmp_path / 'with', [hook_config(checkpoint)])
    hook = the_hook(runner)
    runner.train()
    watch.assert_identical()
    assert len(logged(runner)) == 8
    assert hook._distillation is None
    assert is_plain(runner.model)
    make_runner(case, tmp_path / 'without').train()
    with_hook, without = (
        torch.load(tmp_path / name / 'epoch_2.pth', weights_only=False) for name in ('with', 'without')
    )
    assert list(with_hook['state_dict']) == list(without['state_dict'])
    assert with_hook.keys() == without.keys()
    assert any(not torch.equal(value, without['state_dict'][name]) for name, value in with_hook['state_dict'].items())


def test_a_term_of_weight_zero_leaves_training_bit_identical(case, tmp_path, checkpoint):
    terms = {'gram': {'tap': 'backbone', 'loss': {'type': GramLoss, 'loss_weight': 0.0}}}
    runners = [
        make_runner(case, tmp_path / 'with', [hook_config(checkpoint, terms)]),
        make_runner(case, tmp_path / 'without'),
    ]
    for runner in runners:
        torch.manual_seed(0)
        runner.train()
    for name, value in runners[0].model.state_dict().items():
        assert torch.equal(value, runners[1].model.state_dict()[name]), name


def test_with_ema(case, tmp_path, checkpoint, watch):
    for position in (0, 1):
        hooks = [{'type': 'EMAHook', 'update_buffers': True}]
        hooks.insert(position, hook_config(checkpoint))
        runner = make_runner(case, tmp_path / str(position), hooks)
        runner.train()
        watch.assert_identical()
        saved = torch.load(tmp_path / str(position) / 'epoch_2.pth', weights_only=False)
        names = set(Net().state_dict())
        assert set(saved['state_dict']) == names
        assert set(saved['ema_state_dict']) == {f'module.{name}' for name in names} | {'steps'}


def test_with_gradient_accumulation_and_clipping(case, tmp_path, checkpoint, watch):
    wrapper = {'accumulative_counts': 2, 'clip_grad': {'max_norm': 1.0}}
    runner = make_runner(case, tmp_path / 'a', [hook_config(checkpoint)], optim_wrapper=wrapper)
    runner.train()
    watch.assert_identical()
    assert len(logged(runner)) == 8


class HalfPrecision(OptimWrapper):
    """mmengine's AmpOptimWrapper does not run on a CPU."""

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


def test_with_automatic_mixed_precision(case, tmp_path, checkpoint, watch):
    terms = {
        'gram': TERMS['gram'],
        'kd': {'tap': 'head', 'loss': {'type': 'mmkd_ext.SoftTargetLoss', 'temperature': 4.0}},
    }
    runner = make_runner(case, tmp_path, [hook_config(checkpoint, terms)], optim_wrapper={'type': HalfPrecision})
    dtypes = []
    runner.model.head.register_forward_hook(lambda module, args, output: dtypes.append(output.dtype))
    runner.train()
    watch.assert_identical()
    assert set(dtypes) == {torch.bfloat16}
    assert torch.tensor(logged(runner)).isfinite().all()
    assert len(logged(runner, 'train/loss_kd')) == 8


def test_with_several_teachers(case, tmp_path, checkpoint, watch):
    torch.save(Net(width=5).state_dict(), tmp_path / 'other.pth')
    hook = {
        'type': 'mmkd_ext.DistillHook',
        'teachers': {
            'wide': teacher_of(checkpoint),
            'other': {'model': {'type': Net, 'width': 5}, 'checkpoint': str(tmp_path / 'other.pth')},
        },
        'terms': {'gram': {**TERMS['gram'], 'of': 'wide'}, 'more': {**TERMS['gram'], 'of': 'other'}},
    }
    runner = make_runner(case, tmp_path, [hook])
    runner.train()
    watch.assert_identical()
    assert len(watch.teachers) == 2
    assert len(logged(runner)) == len(logged(runner, 'train/loss_more')) == 8


def test_an_epoch_of_a_loop_that_counts_iterations_is_a_pass_over_the_data(case, tmp_path, checkpoint):
    epochs = []

    class EpochLoss(GramLoss):
        def forward(self, student, teacher, *, epoch):
            epochs.append(epoch)
            return super().forward(student, teacher)

    hook = hook_config(checkpoint, {'gram': {'tap': 'backbone', 'loss': {'type': EpochLoss}}})
    runner = make_runner(case, tmp_path, [hook], train_cfg={'by_epoch': False, 'max_iters': 10})
    runner.train()
    assert epochs[1:] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_statistics_are_logged_with_each_line_and_never_between(case, tmp_path, checkpoint):
    terms = {'gram': TERMS['gram'], 'head': {'tap': 'head', 'loss': {'type': GramLoss}, 'agreement': True}}
    runner = make_runner(case, tmp_path, [hook_config(checkpoint, terms)], log_interval=2)
    lines = []
    add_scalars = runner.visualizer.add_scalars
    runner.visualizer.add_scalars = lambda tag, **kwargs: lines.append(dict(tag)) or add_scalars(tag, **kwargs)
    runner.train()
    kinds = {'share', 'cka', 'collapse'}
    names = {f'{kind}_{term}' for kind in kinds for term in terms} | {'agree_head'}
    assert len(lines) == 4
    for name in names:
        assert len(logged(runner, f'train/{name}')) == 4, name
        assert all(name in line for line in lines)
    for line, share in zip(lines, logged(runner, 'train/share_gram'), strict=True):
        assert line['share_gram'] == pytest.approx(share)
        assert 0 < line['share_gram'] + line['share_head'] < 1
        assert line['agree_head'] in (0, 0.25, 0.5, 0.75, 1)


def test_without_a_logger_there_are_no_statistics(case, tmp_path, checkpoint):
    runner = make_runner(case, tmp_path, [hook_config(checkpoint)], log_interval=None)
    runner.train()
    assert not [name for name in runner.message_hub.log_scalars if 'cka' in name]


def test_the_cost_of_the_teacher_is_reported_once(case, tmp_path, checkpoint, caplog):
    runner = make_runner(case, tmp_path, [hook_config(checkpoint)], epochs=5)
    runner.logger = logging.getLogger('plain')
    with caplog.at_level(logging.INFO, 'plain'):
        runner.train()
    costs = [record.message for record in caplog.records if "share of the teachers' forwards" in record.message]
    assert len(costs) == 1
    assert re.search(r'mean of 10 steps: teacher \d+% \([\d.]+ ms\)$', costs[0])


def test_data_that_workers_load(case, tmp_path, checkpoint, watch):
    runner = make_runner(case, tmp_path, [hook_config(checkpoint)], epochs=1, num_workers=1)
    runner.train()
    watch.assert_identical()
    assert len(logged(runner)) == 4


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
@pytest.mark.parametrize('parts', [('student',), ('teacher',), ('student', 'teacher')])
def test_compiled_training_computes_the_same(case, tmp_path, checkpoint, watch, backend, parts):
    plain = make_runner(case, tmp_path / 'plain', [hook_config(checkpoint)])
    plain.train()
    hook = hook_config(checkpoint)
    if 'teacher' in parts:
        hook['teacher'] |= {'compile': {'backend': backend}}
    compiled = make_runner(
        case, tmp_path / 'compiled', [hook], cfg={'compile': {'backend': backend}} if 'student' in parts else None
    )
    compiled.train()
    watch.assert_identical()
    torch.testing.assert_close(torch.tensor(logged(compiled)), torch.tensor(logged(plain)), rtol=1e-4, atol=1e-5)


def test_the_teacher_stops_after_its_last_tap_and_the_losses_stay_the_same(case, tmp_path, checkpoint, monkeypatch):
    num_heads = []

    def run(name):
        runner = make_runner(case, tmp_path / name, [hook_config(checkpoint)])
        set_up = the_hook(runner).before_train

        def before_train(runner):
            set_up(runner)
            (teacher,) = the_hook(runner)._distillation.teachers.values()
            teacher.model.head.register_forward_hook(lambda *_: num_heads.append(name))

        the_hook(runner).before_train = before_train
        runner.train()
        return runner

    stopped = run('stopped')
    assert num_heads == []
    monkeypatch.setattr(FrozenTeacher, '_is_checked', property(lambda _: False, lambda *_: None), raising=False)
    whole = run('whole')
    assert num_heads == ['whole'] * 8
    assert logged(stopped) == pytest.approx(logged(whole), abs=0)
    for name, value in stopped.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]), name


def test_with_activation_checkpointing(case, tmp_path, checkpoint, watch):
    runner = make_runner(
        case, tmp_path / 'a', [hook_config(checkpoint)], cfg={'activation_checkpointing': ['backbone.2']}
    )
    runner.train()
    watch.assert_identical()
    assert len(logged(runner)) == 8


def test_testing_needs_no_teacher(case, tmp_path):
    runner = make_runner(
        case,
        tmp_path,
        [hook_config('nothing.pth')],
        test_dataloader={
            'dataset': samples(),
            'sampler': {'type': 'DefaultSampler'},
            'batch_size': 4,
            'collate_fn': {'type': 'default_collate'},
        },
        test_cfg={},
        test_evaluator={'type': 'DumpResults', 'out_file_path': str(tmp_path / 'out.pkl')},
    )
    runner.test()
    assert (tmp_path / 'out.pkl').is_file()


# Two processes


def _train_replica(rank, case, folder, checkpoint):
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    runner = make_runner(
        case,
        folder / 'work',
        [hook_config(checkpoint), {'type': 'EMAHook'}],
        drop=0.0,
        launcher='pytorch',
        cfg={
            'model_wrapper_cfg': {'type': 'MMDistributedDataParallel', 'device_ids': None, 'broadcast_buffers': False}
        },
    )
    steps = []

    def watch(student, args, call):
        state = copy.deepcopy(student.state_dict())
        steps.append({'inputs': call['inputs'], 'labels': labels_of(call['data_samples']), 'state': state})

    patch = pytest.MonkeyPatch()
    teacher = Watch(patch)
    student = runner.model.module
    student.register_forward_pre_hook(watch, with_kwargs=True)
    runner.train()
    teacher.assert_identical()
    patch.undo()
    torch.save({'steps': steps, 'final': student.state_dict()}, folder / f'rank_{rank}.pth')
    dist.destroy_process_group()


def labels_of(data_samples):
    return torch.cat([sample.gt_label for sample in data_samples])


def test_two_processes_stay_equal_and_average_the_gradient_of_the_term(case, tmp_path, checkpoint):
    torch.multiprocessing.start_processes(_train_replica, (case, tmp_path, checkpoint), nprocs=2, start_method='fork')
    ranks = [torch.load(tmp_path / f'rank_{rank}.pth', weights_only=True) for rank in range(2)]
    trained = dict(Net().named_parameters())
    for name in trained:
        assert torch.equal(ranks[0]['final'][name], ranks[1]['final'][name]), name
    for rank in ranks:
        del rank['steps'][0]  # the rehearsal
    assert len(ranks[0]['steps']) == 4
    assert not torch.equal(ranks[0]['steps'][0]['inputs'], ranks[1]['steps'][0]['inputs'])

    teacher = Net(width=6).eval()
    teacher.load_state_dict(torch.load(checkpoint, weights_only=True)['state_dict'])
    expected = dict.fromkeys(trained, 0.0)
    for rank in ranks:
        student = Net(drop=0.0)
        student.load_state_dict(rank['steps'][0]['state'])
        x, labels = rank['steps'][0]['inputs'], rank['steps'][0]['labels']
        feature = student.backbone(x)
        loss = cross_entropy(student.head(feature), labels) + gram_loss(feature, teacher.backbone(x).detach())
        loss.backward()
        for name, parameter in student.named_parameters():
            expected[name] = expected[name] + parameter.grad / 2
    first, second = (ranks[0]['steps'][i]['state'] for i in range(2))
    for name in trained:
        torch.testing.assert_close((first[name] - second[name]) / 0.1, expected[name], rtol=1e-4, atol=1e-5)
