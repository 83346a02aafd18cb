import pytest
import torch
import torchvision

from mmkd_ext.functional import similarity_preserving
from mmkd_ext.ops.maps import Extents, MapLayout, pool_map, sample_positions, sample_tokens, token_grids


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


# Padding: what is compared is what each image alone would give.


def padded_batch(sizes=((4, 6), (8, 3), (8, 8)), channels=(3, 5)):
    """Maps of images of several sizes, each alone and padded with what must not be seen."""
    alone = [[torch.randn(1, width, *size) for size in sizes] for width in channels]
    maps = []
    for parts in alone:
        x = torch.full((len(sizes), parts[0].shape[1], 8, 8), 1e6)
        for image, part in enumerate(parts):
            x[image, :, : part.shape[2], : part.shape[3]] = part[0]
        maps.append(x)
    # images of 8 pixels a cell; the batch has 64 x 64
    return maps, alone, Extents(tuple((8 * h, 8 * w) for h, w in sizes), (64, 64))


def test_the_mean_of_padded_images_is_that_of_each_alone():
    (x, _), (alone, _), extents = padded_batch()
    expected = torch.cat([part.mean((2, 3)) for part in alone])
    torch.testing.assert_close(pool_map(x, None, extents), expected, rtol=0, atol=1e-6)
    last = pool_map(x.permute(0, 2, 3, 1), MapLayout('NHWC'), extents)
    torch.testing.assert_close(last, expected, rtol=0, atol=1e-6)


def test_a_relation_of_all_tokens_is_that_of_unpadded_images():
    maps, alone, extents = padded_batch()
    rows = sample_tokens(*maps, 64, generator(), extents=extents)
    expected = [torch.cat([part.flatten(2)[0].mT for part in parts]) for parts in alone]
    assert rows[0].shape == expected[0].shape == (4 * 6 + 8 * 3 + 8 * 8, 3)
    torch.testing.assert_close(similarity_preserving(*rows), similarity_preserving(*expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize('number', [1, 7, 30])
def test_no_token_is_drawn_from_the_padding(number):
    maps, _, extents = padded_batch()
    student, teacher = sample_tokens(*maps, number, generator(), extents=extents)
    assert len(student) == len(teacher) == sum(min(number, cells) for cells in (24, 24, 64))
    assert max(student.max(), teacher.max()) < 100


def test_the_finer_grid_is_averaged_down_without_the_padding():
    maps, alone, extents = padded_batch(sizes=((4, 6), (8, 4), (8, 8)))
    coarse = torch.randn(3, 5, 4, 4)
    student, _ = sample_tokens(maps[0], coarse, 16, generator(), extents=extents)
    expected = torch.cat([torch.nn.functional.avg_pool2d(part, 2).flatten(2)[0].mT for part in alone[0]])
    # in another order: compared by what does not depend on it
    torch.testing.assert_close(student.sort(0).values, expected.sort(0).values, rtol=0, atol=1e-6)


def test_positions_are_those_that_all_images_reach():
    maps, _, extents = padded_batch()
    student, _ = sample_positions(*maps, 99, generator(), extents=extents)
    assert student.shape == (4 * 3, 3, 3)
    assert student.max() < 100


def test_positions_without_label_are_not_drawn():
    x = grid(2, 4, 4)
    usable = torch.ones(2, 16, 16, dtype=torch.bool)
    usable[0, :8] = False
    usable[1, 8:12, :4] = False
    rows, _ = sample_tokens(x, x, 16, generator(), usable=usable)
    assert sorted(rows.flatten().tolist()) == [*range(8, 16), *range(16, 24), *range(25, 32)]
    both, _ = sample_positions(x, x, 16, generator(), usable=usable)
    assert sorted(both[:, 0].flatten().tolist()) == list(range(9, 16))
    usable[:] = False
    assert len(sample_positions(x, x, 16, generator(), usable=usable)[0]) == 0


def test_a_map_with_channels_last_is_not_taken_for_another():
    maps = torchvision.models.SwinTransformer([4, 4], 16, [1, 1], [2, 4], [4, 4]).features(torch.randn(2, 3, 16, 16))
    for call in (
        lambda: pool_map(maps),
        lambda: sample_tokens(maps, maps, 3, generator()),
        lambda: sample_positions(maps, maps, 3, generator()),
    ):
        with pytest.raises(ValueError, match=r"looks like \(N, H, W, C\); say which: layout='NHWC'"):
            call()


@pytest.mark.parametrize('axes', ['NCHW', 'NHWC', 'NLC', 'NCL', 'LNC'])
def test_every_layout_gives_the_same_rows(axes):
    x = torch.randn(2, 3, 4, 4)
    flat = x.flatten(2)
    given = {'NCHW': x, 'NHWC': x.permute(0, 2, 3, 1), 'NLC': flat.mT, 'NCL': flat, 'LNC': flat.permute(2, 0, 1)}[axes]
    layouts = MapLayout(axes), MapLayout()
    assert torch.equal(*sample_tokens(given, x, 5, generator(), layouts=layouts))
    assert torch.equal(*sample_positions(given, x, 5, generator(), layouts=layouts))
    torch.testing.assert_close(pool_map(given, layouts[0]), pool_map(x))


@pytest.mark.parametrize('size', [(48, 80), (64, 64), (100, 75)])
def test_grids_are_those_that_convolutions_make(size):
    for stride in (4, 8, 16, 32):
        for ceil in (False, True):
            pool = torch.nn.AvgPool2d(stride, ceil_mode=ceil)
            rows, columns = pool(torch.ones(1, 1, *size)).shape[2:] if min(size) >= stride else (0, 0)
            if rows * columns and (size[0] != size[1] or rows == columns):
                assert (rows, columns) in token_grids(rows * columns, size)
