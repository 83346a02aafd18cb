import argparse
import datetime
import functools
import http.server
import json
import os
import pickle
import re
import struct
import sys
import threading
import zipfile
from collections import OrderedDict, defaultdict
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import addict
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

from mmkd_ext.checkpoint import load_checkpoint_safely, load_from_path_safely, register_safe_loader


@pytest.fixture(autouse=True)
def _own_schemes():
    """What a test registers is taken back."""
    schemes = CheckpointLoader._schemes
    CheckpointLoader._schemes = schemes.copy()
    yield
    CheckpointLoader._schemes = schemes


class Call:
    """Pickles as a call of ``function``: the plain hostile file."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def replace_pickle(path, change):
    """Rewrite the pickle inside a file of torch.save."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        for name, record in records.items():
            archive.writestr(name, change(record) if name.endswith('/data.pkl') else record)


def text(value):
    return b'X' + struct.pack('<I', len(value)) + value.encode()


def attribute(owner, name):
    return b'cbuiltins\ngetattr\n(' + owner + text(name) + b'tR'


HISTORY_BUFFER = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'


def history_buffer(*states):
    return HISTORY_BUFFER + b')\x81' + b''.join(state + b'b' for state in states)


def hide_behind_getattr(path, marker):
    """Write a checkpoint that makes the directory ``marker``, and names nothing but HistoryBuffer and getattr.

    ``__globals__`` of a method, as state of a buffer, gives modules as attributes; the function reached becomes the
    ``__setstate__`` of a buffer, which the next state calls.
    """
    namespace = attribute(attribute(HISTORY_BUFFER, '__init__'), '__globals__')
    modules = attribute(attribute(attribute(history_buffer(namespace), 'warnings'), 'sys'), 'modules')
    mkdir = attribute(attribute(history_buffer(modules), 'os'), 'mkdir')
    payload = history_buffer(b'}' + text('__setstate__') + mkdir + b's', text(str(marker)))
    torch.save({}, path)
    replace_pickle(path, lambda _: b'\x80\x02}' + text('state_dict') + payload + b's.')


# Refused files


@pytest.mark.parametrize('zipped', [True, False])
def test_plain_payload_does_not_run(tmp_path, zipped):
    marker = tmp_path / 'marker'
    torch.save({'state_dict': Call(os.mkdir, str(marker))}, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=rf'{tmp_path}/a\.pth but it asks for (posix|nt)\.mkdir, .* not loaded'):
        load_checkpoint_safely(tmp_path / 'a.pth')
    assert not marker.exists()


@pytest.mark.parametrize('protocol', range(6))
def test_a_plain_pickle_does_not_run_and_is_named(tmp_path, protocol):
    marker = tmp_path / 'marker'
    (tmp_path / 'a.pth').write_bytes(pickle.dumps({'state_dict': Call(os.mkdir, str(marker))}, protocol=protocol))
    with pytest.raises(ValueError, match=r'asks for .*(posix|nt)\.mkdir, .* not loaded'):
        load_checkpoint_safely(tmp_path / 'a.pth')
    assert not marker.exists()


def test_payload_behind_getattr_does_not_run(tmp_path):
    marker = tmp_path / 'marker'
    hide_behind_getattr(tmp_path / 'a.pth', marker)
    with pytest.raises(ValueError, match=r"asks for getattr\(.*HistoryBuffer.*, '__init__'\)"):
        load_checkpoint_safely(tmp_path / 'a.pth')
    assert not marker.exists()


def test_payload_behind_getattr_does_not_run_where_the_process_allows_getattr(tmp_path):
    marker = tmp_path / 'marker'
    hide_behind_getattr(tmp_path / 'a.pth', marker)
    with torch.serialization.safe_globals([getattr]):
        with pytest.raises(ValueError, match='asks for getattr'):
            load_checkpoint_safely(tmp_path / 'a.pth')
        assert getattr in torch.serialization.get_safe_globals()
    assert getattr not in torch.serialization.get_safe_globals()
    assert not marker.exists()


def test_the_hidden_payload_is_a_real_one(tmp_path):
    from mmengine.logging import HistoryBuffer

    marker = tmp_path / 'marker'
    hide_behind_getattr(tmp_path / 'a.pth', marker)
    with torch.serialization.safe_globals([getattr, HistoryBuffer]):
        torch.load(tmp_path / 'a.pth', weights_only=True)
    assert marker.is_dir()


def test_a_whole_model_is_refused_by_name(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'asks for torch\.nn\.modules\.linear\.Linear'):
        load_checkpoint_safely(tmp_path / 'a.pth')


def test_classes_that_the_user_allows_stay_allowed(tmp_path):
    torch.save({'share': Fraction(1, 2)}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'asks for fractions\.Fraction'):
        load_checkpoint_safely(tmp_path / 'a.pth')
    with torch.serialization.safe_globals([Fraction]):
        assert load_checkpoint_safely(tmp_path / 'a.pth') == {'share': Fraction(1, 2)}
    torch.save({'path': Path('a')}, tmp_path / 'a.pth')
    with torch.serialization.safe_globals([type(Path('a'))]):
        assert load_checkpoint_safely(tmp_path / 'a.pth') == {'path': Path('a')}


@pytest.mark.parametrize(
    ('settings', 'content'),
    [
        (argparse.Namespace(arch='vit_small', epochs=100), {'arch': 'vit_small', 'epochs': 100}),
        (SimpleNamespace(lr=0.1), {'lr': 0.1}),
        (ConfigDict(lr=0.1), None),
        (addict.Dict(lr=0.1, a=dict(b=1)), None),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (argparse.Namespace(output=Path('a'), at=datetime.datetime(2026, 1, 1)), None),
    ],
)
def test_settings_of_other_training_codes_are_read_without_their_classes(tmp_path, settings, content):
    """The full checkpoint of DINO has an argparse.Namespace, others have configs of many kinds."""
    torch.save({'teacher': {'w': torch.ones(2)}, 'args': settings}, tmp_path / 'a.pth')
    read = load_checkpoint_safely(tmp_path / 'a.pth')
    assert torch.equal(read['teacher']['w'], torch.ones(2))
    assert type(read['args']) is OrderedDict
    assert content is None or {**read['args'], **vars(read['args'])} == content


# Damaged files


@pytest.mark.parametrize(
    'damage',
    [
        lambda data: b'',
        lambda data: data[: len(data) // 2],
        lambda data: data[:-30],
        lambda data: b'version https://git-lfs.github.com/spec/v1',
        lambda data: bytes(range(256)) * 4,
        lambda data: b'<!DOCTYPE html><html></html>',
    ],
    ids=['empty', 'half', 'no end', 'lfs pointer', 'noise', 'html'],
)
def test_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / 'damaged.pth'
    torch.save({'state_dict': {'weight': torch.ones(100)}}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r'damaged\.pth is corrupt, truncated or of another kind'):
        load_checkpoint_safely(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'expected a file but found none at .*nothing\.pth'):
        load_checkpoint_safely(tmp_path / 'nothing.pth')


def test_a_list_is_no_checkpoint(tmp_path):
    torch.save([1, 2], tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'expected a dict in .* but got list'):
        load_checkpoint_safely(tmp_path / 'a.pth')


# Honest files


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return {'loss': self.linear(torch.stack(inputs)).square().mean()}


def runner(work_dir, epochs=1, schedulers=(), **kwargs):
    return Runner(
        model=dict(type=Net),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.ones(2)) for _ in range(4)], sampler=dict(type='DefaultSampler'), batch_size=2
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=list(schedulers),
        experiment_name=f'{work_dir.name}_{epochs}',
        log_level='ERROR',
        **kwargs,
    )


SCHEDULES = {
    'none': [],
    'warm-up and cosine': [dict(type='LinearLR', end=1), dict(type='CosineAnnealingLR', T_max=4)],
    'poly': [dict(type='PolyLR')],
    'multi-step': [dict(type='MultiStepLR', milestones=[1])],
    'one cycle': [dict(type='OneCycleLR', eta_max=0.1, total_steps=8, by_epoch=False)],
    'one cycle, linear': [
        dict(type='OneCycleLR', eta_max=0.1, total_steps=8, by_epoch=False, anneal_strategy='linear')
    ],
}


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_reads_and_resumes_what_the_runner_wrote(tmp_path, schedule):
    register_safe_loader()
    runner(tmp_path, 1, SCHEDULES[schedule], custom_hooks=[dict(type='EMAHook')]).train()
    checkpoint = load_checkpoint_safely(tmp_path / 'epoch_1.pth')
    assert set(checkpoint['state_dict']) == {'linear.weight', 'linear.bias'}
    assert checkpoint['message_hub']['log_scalars']['train/loss'].data[0].shape == (2,)

    resumed = runner(tmp_path, 2, SCHEDULES[schedule], custom_hooks=[dict(type='EMAHook')], resume=True)
    resumed.train()
    assert resumed.iter == 4
    assert len(resumed.message_hub.get_scalar('train/loss').data[0]) == 4


def test_resumes_with_the_loader_of_the_original_mmengine_replaced(tmp_path):
    """mmengine 0.10.7 calls torch.load as below, which fails since torch 2.6."""
    runner(tmp_path).train()

    def load_from_local(filename, map_location):
        return torch.load(filename, map_location=map_location)

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    with pytest.raises(Exception, match='Weights only load failed'):
        runner(tmp_path, 2, resume=True).train()
    register_safe_loader()
    resumed = runner(tmp_path, 3, resume=True)
    resumed.train()
    assert resumed.epoch == 3


@pytest.mark.parametrize('module', [b'numpy.core.multiarray', b'numpy._core.multiarray'])
def test_reads_files_written_under_numpy_1_and_2(tmp_path, module):
    path = tmp_path / 'a.pth'
    torch.save({'array': np.arange(3.0, dtype='f4'), 'scalar': np.float64(0.5), 'flag': np.bool_(True)}, path)
    replace_pickle(path, lambda data: re.sub(rb'numpy\._?core\.multiarray', module, data))
    checkpoint = load_checkpoint_safely(path)
    assert checkpoint['array'].tolist() == [0, 1, 2]
    assert (checkpoint['scalar'], checkpoint['flag']) == (0.5, True)


# The process-wide loader


def test_register_covers_files_and_addresses_and_leaves_other_prefixes_alone():
    register_safe_loader()  # once more than a test before this one may have done
    register_safe_loader()
    modules = {prefix: loader.__module__ for prefix, loader in CheckpointLoader._schemes.items()}
    ours = {prefix for prefix, module in modules.items() if module == 'mmkd_ext.checkpoint'}
    assert ours == {'', 'http://', 'https://'}


def test_everything_in_mmengine_that_loads_is_safe(tmp_path):
    register_safe_loader()
    marker = tmp_path / 'marker'
    torch.save({'state_dict': Call(os.mkdir, str(marker))}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='not loaded'):
        runner(tmp_path, load_from=str(tmp_path / 'a.pth')).train()
    model = Net()
    model.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    with pytest.raises(ValueError, match='not loaded'):
        model.init_weights()
    assert not marker.exists()


def test_a_hostile_file_from_a_server_does_not_run(tmp_path, monkeypatch):
    """mmengine's own http loader unpickles whatever the server sends."""
    (tmp_path / 'served').mkdir()
    marker = tmp_path / 'marker'
    torch.save({'state_dict': Call(os.mkdir, str(marker))}, tmp_path / 'served' / 'a.pth')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / 'served')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'cache'))
    monkeypatch.setattr(handler.func, 'log_message', lambda *args: None)
    register_safe_loader()
    with http.server.HTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ValueError, match='not loaded'):
            runner(tmp_path, load_from=f'http://127.0.0.1:{server.server_port}/a.pth').train()
        server.shutdown()
    assert not marker.exists()


def test_mmengine_can_log_the_name_of_the_loader():
    assert len(load_from_path_safely.__name__) > 10


# Other sources


def write_safetensors(path, name, values):
    header = json.dumps({name: {'dtype': 'F32', 'shape': [len(values)], 'data_offsets': [0, 4 * len(values)]}}).encode()
    path.write_bytes(struct.pack('<Q', len(header)) + header + np.asarray(values, dtype='<f4').tobytes())


def test_safetensors(tmp_path):
    pytest.importorskip('safetensors')
    write_safetensors(tmp_path / 'a.safetensors', 'weight', [1.0, 2.0])
    assert load_checkpoint_safely(tmp_path / 'a.safetensors')['weight'].tolist() == [1, 2]
    (tmp_path / 'a.safetensors').write_bytes(b'12345')
    with pytest.raises(ValueError, match=r'expected a safetensors file but .*a\.safetensors is corrupt'):
        load_checkpoint_safely(tmp_path / 'a.safetensors')


def test_safetensors_goes_through_the_package(tmp_path, monkeypatch):
    module = ModuleType('safetensors.torch')
    module.load_file = lambda path, device: {'weight': torch.ones(2, device=device)}
    monkeypatch.setitem(sys.modules, 'safetensors', ModuleType('safetensors'))
    monkeypatch.setitem(sys.modules, 'safetensors.torch', module)
    (tmp_path / 'a.safetensors').touch()
    assert load_checkpoint_safely(tmp_path / 'a.safetensors', None)['weight'].tolist() == [1, 1]


def test_safetensors_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    (tmp_path / 'a.safetensors').touch()
    with pytest.raises(ModuleNotFoundError, match=r'expected the package safetensors .* run `pip install safetensors`'):
        load_checkpoint_safely(tmp_path / 'a.safetensors')


def test_http_address_is_downloaded_once_checked_and_read_safely(tmp_path, monkeypatch):
    calls = []

    def download(url, path, hash_prefix):
        calls.append((url, hash_prefix))
        torch.save({'state_dict': {}}, path)

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    url = 'https://example.org/resnet34_b16x8_cifar10_20210528-a8aa36a6.pth'
    for _ in range(2):
        assert load_checkpoint_safely(url) == {'state_dict': {}}
    assert calls == [(url, 'a8aa36a6')]
