import hashlib
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from mmkd_ext.distill import fingerprint, model_fingerprint

DIFFERENT = [
    None,
    True,
    1,
    1.0,
    '1',
    b'1',
    int,
    [],
    [1],
    [[1]],
    [1, 1],
    ['ab', 'c'],
    ['a', 'bc'],
    ['abc'],
    {},
    {'a': 1},
    {'a': 2},
    {'b': 1},
    {'a': {'b': 1}},
    {1: 1},
    np.zeros(2, np.float32),
    np.zeros(2, np.int32),
    np.zeros((2, 1), np.float32),
    np.zeros((1, 2), np.float32),
    torch.zeros(2),
    torch.zeros(2, dtype=torch.bfloat16),
    torch.tensor(0.0),
    -torch.zeros(2),
]


def test_different_values_differ():
    assert len({fingerprint(value) for value in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize(
    ('left', 'right'),
    [
        ((1, 2), [1, 2]),
        (np.int64(3), 3),
        (np.float64(0.5), 0.5),
        (OrderedDict(a=1, b=2), {'b': 2, 'a': 1}),
        (np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T.copy()),
        (torch.arange(6).view(2, 3).T, torch.arange(6).view(2, 3).T.clone()),
    ],
)
def test_equal_values_agree(left, right):
    assert fingerprint(left) == fingerprint(right)


def test_it_is_the_sha256_of_a_known_text():
    assert fingerprint(3) == hashlib.sha256(b'5 int 3').hexdigest()


def test_it_is_the_same_in_another_process():
    value = "{'b': [1, 2.5, None], 'a': {'c': 'x'}}"
    code = f'from mmkd_ext.distill.cache import fingerprint; print(fingerprint({value}))'
    output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == fingerprint({'b': [1, 2.5, None], 'a': {'c': 'x'}})


def test_objects_are_refused():
    with pytest.raises(TypeError, match='expected numbers, text, arrays and tensors but got object'):
        fingerprint([object()])


def model(slope=0.1):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.LeakyReLU(slope))


def test_models_of_equal_weights_and_modules_agree():
    assert model_fingerprint(model()) == model_fingerprint(model())


def test_weights_buffers_and_modules_count():
    changed = model()
    changed[0].weight.data[0, 0] = torch.nextafter(changed[0].weight.data[0, 0], torch.tensor(9.0))
    moved = model()
    moved[1].running_mean[0] = 1e-30
    digests = [model_fingerprint(m) for m in (model(), model(slope=0.2), changed, moved)]
    assert len(set(digests)) == 4
