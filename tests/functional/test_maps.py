import pytest
import torch

from mmkd_ext.functional.maps import pool_map, sample_tokens


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def grid(num_images, height, width):
    """A map whose value at a position is its number, counted over images and positions."""
    size = num_images * height * width
    return torch.arange(size, dtype=torch.float32).view(num_images, 1, height, width)


def test_pooling_is_the_mean_over_positions():
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(pool_map(x), torch.stack([c.mean() for image in x for c in image]).view(2, 3))


def test_rows_need_no_pooling():
    x = torch.randn(2, 3)
    assert pool_map(x) is x


def test_pooling_refuses_other_tensors():
    with pytest.raises(ValueError, match=r'pool_map: expected x of shape \(N, C, H, W\) but got \(2, 5, 3\)'):
        pool_map(torch.ones(2, 5, 3))


def test_student_and_teacher_are_read_at_the_same_positions():
    x = grid(3, 4, 5)
    student, teacher = sample_tokens(x, torch.cat([x, -x], 1), 6, generator())
    assert student.shape == (18, 1)
    torch.testing.assert_close(torch.cat([student, -student], 1), teacher)


def test_positions_are_drawn_without_replacement_image_by_image():
    rows, _ = sample_tokens(grid(3, 4, 5), grid(3, 4, 5), 6, generator())
    drawn = rows.view(3, 6)
    for image, positions in enumerate(drawn):
        assert len(set(positions.tolist())) == 6
        assert all(20 * image <= p < 20 * (image + 1) for p in positions.tolist())
    assert set((drawn[0] % 20).tolist()) != set((drawn[1] % 20).tolist())


def test_more_tokens_than_positions_takes_each_once():
    rows, _ = sample_tokens(grid(2, 2, 2), grid(2, 2, 2), 99, generator())
    assert sorted(rows.flatten().tolist()) == list(range(8))


def test_the_finer_grid_is_averaged_down():
    fine = grid(1, 4, 4)
    coarse = torch.stack([fine[0, 0, r : r + 2, c : c + 2].mean() for r in (0, 2) for c in (0, 2)]).view(1, 1, 2, 2)
    for student, teacher in ((fine, coarse), (coarse, fine)):
        torch.testing.assert_close(*sample_tokens(student, teacher, 3, generator()))


def test_the_seed_decides():
    def draw(source):
        return sample_tokens(grid(2, 8, 8), grid(2, 8, 8), 5, source)[0]

    assert torch.equal(draw(generator(1)), draw(generator(1)))
    assert not torch.equal(draw(generator(1)), draw(generator(2)))
    source = generator(1)
    assert not torch.equal(draw(source), draw(source))


def test_gradient_reaches_only_the_positions_drawn():
    x = grid(1, 3, 3).requires_grad_()
    sample_tokens(x, grid(1, 3, 3), 4, generator())[0].sum().backward()
    assert sorted(x.grad.flatten().tolist()) == [0.0] * 5 + [1.0] * 4


@pytest.mark.parametrize(
    ('student', 'teacher', 'num_tokens', 'message'),
    [
        (torch.ones(2, 3), torch.ones(2, 3, 4, 4), 2, r'expected student of shape \(N, C, H, W\) but got \(2, 3\)'),
        (torch.ones(2, 3, 4, 4), torch.ones(1, 3, 4, 4), 2, 'expected maps of the same images'),
        (torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4), 0, 'num_tokens >= 1'),
    ],
)
def test_refuses(student, teacher, num_tokens, message):
    with pytest.raises(ValueError, match=message):
        sample_tokens(student, teacher, num_tokens, generator())
