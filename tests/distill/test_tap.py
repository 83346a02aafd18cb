import pytest
import torch
from torch import nn

from mmkd_ext.distill import Tap


@pytest.mark.parametrize(
    ('text', 'tap'),
    [
        ('neck', Tap('neck')),
        ('backbone[-1]', Tap('backbone', index=-1)),
        ('head.fc:in', Tap('head.fc', is_input=True)),
        ('decode_head.conv_seg:in[2]', Tap('decode_head.conv_seg', is_input=True, index=2)),
        ('backbone.layer1.0.conv1', Tap('backbone.layer1.0.conv1')),
    ],
)
def test_reads_every_form_and_writes_it_again(text, tap):
    assert Tap.parse(text) == tap
    assert str(tap) == text


@pytest.mark.parametrize(
    'text', ['', ':in', '[0]', 'neck[', 'neck[a]', 'neck[0][1]', 'neck[0]:in', 'neck:out', 'a..b', '.neck', 'neck gap']
)
def test_malformed_text(text):
    with pytest.raises(ValueError, match=r'tap: expected `module.path`'):
        Tap.parse(text)


def test_text_must_be_a_string():
    with pytest.raises(TypeError, match=r'tap: expected a string but got 3'):
        Tap.parse(3)


@pytest.fixture
def model():
    return nn.ModuleDict({'backbone': nn.Sequential(nn.Linear(2, 2)), 'neck': nn.ModuleDict({'gap': nn.Identity()})})


def test_resolves_nested_modules(model):
    assert Tap.parse('backbone.0').resolve(model, 'student') is model['backbone'][0]


@pytest.mark.parametrize(
    ('text', 'hint'),
    [
        ('nek', r"did you mean one of \['neck'"),
        ('head.gap', r"did you mean one of .*'neck\.gap'"),
        ('zzz', r"its children are \['backbone', 'neck'\]"),
    ],
)
def test_unknown_module_lists_near_misses(model, text, hint):
    with pytest.raises(KeyError, match=f'student: expected a module .*{text}.*{hint}'):
        Tap.parse(text).resolve(model, 'student')


def test_picks_tensor_single_item_and_indexed_item():
    items = [torch.zeros(1), torch.ones(1)]
    assert Tap.parse('a').pick(items[0], 'student') is items[0]
    assert Tap.parse('a').pick((items[0],), 'student') is items[0]
    assert Tap.parse('a[-1]').pick(tuple(items), 'student') is items[1]


@pytest.mark.parametrize(
    ('text', 'value', 'error', 'message'),
    [
        ('a', (torch.zeros(1), torch.zeros(1)), TypeError, r"got a tuple of 2; choose an item, for example 'a\[-1\]'"),
        (
            'a[2]',
            (torch.zeros(1), torch.zeros(1)),
            IndexError,
            r'expected more than 2 items; use an index in \[-2, 1\]',
        ),
        ('a[-3]', (torch.zeros(1), torch.zeros(1)), IndexError, r'expected more than 2 items'),
        ('a', {'x': torch.zeros(1)}, TypeError, 'expected a tensor but got dict'),
        ('a[0]', ((torch.zeros(1),),), TypeError, 'expected a tensor but got tuple'),
        ('a', (), TypeError, 'got a tuple of 0'),
    ],
)
def test_what_cannot_be_picked(text, value, error, message):
    with pytest.raises(error, match=rf"student: tap '{text}'.*".replace('[', r'\[') + message):
        Tap.parse(text).pick(value, 'student')


def test_index_of_a_plain_tensor_is_an_error():
    with pytest.raises(TypeError, match=r"tap 'a\[0\]' expected a tuple but got a tensor; drop the index"):
        Tap.parse('a[0]').pick(torch.zeros(2, 3), 'student')
