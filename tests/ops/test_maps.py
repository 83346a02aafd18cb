import pytest
import torch

from mmkd_ext.functional import similarity_preserving
from mmkd_ext.ops.maps import pool_map, sample_positions, sample_tokens


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


# All images at one position


def test_all_images_are_read_at_the_same_positions():
    x = grid(3, 4, 5)
    student, teacher = sample_positions(x, torch.cat([x, -x], 1), 6, generator())
    assert (student.shape, teacher.shape) == ((6, 3, 1), (6, 3, 2))
    torch.testing.assert_close(torch.cat([student, -student], 2), teacher)
    positions = student[:, 0, 0]
    assert len(set(positions.tolist())) == 6
    assert torch.equal(student[..., 0], positions[:, None] + 20 * torch.arange(3))


def test_more_positions_than_there_are_takes_each_once():
    student, _ = sample_positions(grid(2, 2, 3), grid(2, 2, 3), 99, generator())
    assert sorted(student[:, 0, 0].tolist()) == list(range(6))


def test_positions_of_the_finer_grid_are_averaged_down():
    fine = grid(1, 4, 4)
    coarse = torch.stack([fine[0, 0, r : r + 2, c : c + 2].mean() for r in (0, 2) for c in (0, 2)]).view(1, 1, 2, 2)
    torch.testing.assert_close(*sample_positions(fine, coarse, 3, generator()))


def test_relation_at_each_position_against_loops_over_gram_matrices():
    x, y = torch.randn(5, 3, 2, 2, dtype=torch.float64), torch.randn(5, 4, 2, 2, dtype=torch.float64)
    batches = zip(*sample_positions(x, y, 4, generator()), strict=True)
    loss = torch.stack([similarity_preserving(s, t) for s, t in batches]).mean()
    expected = 0.0
    for row in range(2):
        for column in range(2):
            grams = []
            for z in (x[:, :, row, column], y[:, :, row, column]):
                gram = torch.stack([torch.stack([sum(a * b for a, b in zip(u, v, strict=True)) for v in z]) for u in z])
                grams.append(gram / (gram**2).sum(1, keepdim=True) ** 0.5)
            expected += ((grams[0] - grams[1]) ** 2).sum() / 25 / 4
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_gradient_at_positions():
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 2, 3, 3, dtype=torch.float64)

    def loss(x):
        return sum(similarity_preserving(s, t) for s, t in zip(*sample_positions(x, y, 3, generator()), strict=True))

    assert torch.autograd.gradcheck(loss, (x,))


def test_the_mean_over_random_positions_is_unbiased():
    x, y = torch.randn(4, 3, 3, 3), torch.randn(4, 3, 3, 3)
    source = generator()

    def loss(num_positions):
        batches = zip(*sample_positions(x, y, num_positions, source), strict=True)
        return torch.stack([similarity_preserving(s, t) for s, t in batches]).mean()

    draws = torch.stack([loss(2) for _ in range(400)])
    assert abs(draws.mean() - loss(9)) < 4 * draws.std() / 20


@pytest.mark.parametrize(
    ('student', 'teacher', 'num_positions', 'message'),
    [
        (torch.ones(2, 3), torch.ones(2, 3, 4, 4), 2, r'expected student of shape \(N, C, H, W\) but got \(2, 3\)'),
        (torch.ones(2, 3, 4, 4), torch.ones(1, 3, 4, 4), 2, 'expected maps of the same images'),
        (torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4), 0, 'num_positions >= 1'),
    ],
)
def test_positions_refuse(student, teacher, num_positions, message):
    with pytest.raises(ValueError, match=f'sample_positions: .*{message}'):
        sample_positions(student, teacher, num_positions, generator())
