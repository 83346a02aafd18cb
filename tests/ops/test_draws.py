import torch

from mmkd_ext.ops.random import seeded_generator


def draw(*words):
    return torch.rand(1000, generator=seeded_generator(*words), dtype=torch.float64)


def test_equal_words_draw_equal_numbers():
    assert torch.equal(draw(3, 7), draw(3, 7))


def test_every_word_matters_and_so_does_its_place():
    draws = torch.stack([draw(*words) for words in ((0, 1), (1, 0), (0, 2), (1, 1), (0, 1, 0, 1))])
    correlation = torch.corrcoef(draws).fill_diagonal_(0)
    assert correlation.abs().max() < 5 / 1000**0.5


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    draw(0)
    assert torch.equal(torch.get_rng_state(), state)
