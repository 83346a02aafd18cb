"""Measure what a teacher cache saves: CPU time of a step with and without it, disk space, rounding by batch size.

    python benchmarks/measure_teacher_cache.py digits --num-batches 20
    python benchmarks/measure_teacher_cache.py resnet34 --batch-size 32

Random images and weights, one thread, milliseconds per batch: forward, backward and update of the student, forward of
the teacher, and the same features from a cache in a temporary folder while it is filled and when it is full.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
from mmengine.registry import init_default_scope
from torch import nn

from mmkd_ext.distill import CachedTeacher, FeatureStore, FrozenTeacher
from mmkd_ext.registry import MODELS

PAIRS = {
    'digits': (
        dict(type='mmkd_ext.ConvNet', in_channels=1, channels=(8, 16)),
        dict(type='mmkd_ext.ConvNet', in_channels=1, channels=(32, 64, 128)),
        (1, 8, 8),
    ),
    'resnet34': (
        dict(type='ResNet_CIFAR', depth=18, out_indices=(3,), style='pytorch'),
        dict(type='ResNet_CIFAR', depth=34, out_indices=(3,), style='pytorch'),
        (3, 32, 32),
    ),
}
"""Backbones of student and teacher, shape of an image."""


class Classifier(nn.Module):
    """A backbone that is called like a model of OpenMMLab."""

    def __init__(self, backbone: dict) -> None:
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, inputs: torch.Tensor, data_samples: list | None = None, mode: str = 'tensor') -> torch.Tensor:
        """Return a number whose gradient reaches every weight."""
        return self.pool(self.backbone(inputs)[-1]).square().mean()


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('pair', choices=PAIRS)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--num-batches', type=int, default=5, help='data set size in batches, at least 3')
    return parser.parse_args()


def milliseconds(action: Callable[[int], object], num_batches: int) -> float:
    """Return the median CPU time of ``action(batch)``, the first two left out."""
    times = []
    for batch in range(num_batches):
        begin = time.process_time()
        action(batch)
        times.append(time.process_time() - begin)
    return 1e3 * statistics.median(times[2:])


def rounding(teacher: FrozenTeacher, images: torch.Tensor) -> dict[int, float]:
    """Return, by batch size, the largest difference from one whole batch relative to the largest feature."""
    ((tap, whole),) = teacher.features(images).items()
    result = {}
    for size in (1, 7, len(images) // 2):
        parts = torch.cat([teacher.features(part)[tap] for part in images.split(size)])
        result[size] = float((parts - whole).abs().max() / whole.abs().max())
    return result


def main() -> None:
    """Entry point."""
    args = parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    init_default_scope('mmpretrain')
    student, teacher_backbone, shape = PAIRS[args.pair]
    size = args.batch_size
    images = torch.randn(args.num_batches, size, *shape)
    samples = [[SimpleNamespace(sample_idx=batch * size + i) for i in range(size)] for batch in range(args.num_batches)]
    model = Classifier(student).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def step(batch: int) -> None:
        optimizer.zero_grad()
        model(images[batch]).backward()
        optimizer.step()

    alone = milliseconds(step, args.num_batches)
    lines = []
    for tap in ('pool', 'backbone[-1]'):
        teacher = FrozenTeacher(Classifier(teacher_backbone), [tap])
        computed = milliseconds(lambda batch, teacher=teacher: teacher.features(images[batch]), args.num_batches)
        with tempfile.TemporaryDirectory() as folder:
            cached = CachedTeacher(teacher, FeatureStore(folder, args.num_batches * size, {}))

            def features(batch: int, cached: CachedTeacher = cached) -> None:
                cached.features(images[batch], samples[batch])

            filling = milliseconds(features, args.num_batches)
            read = milliseconds(features, args.num_batches)
            row = sum(cached.store.layout.sizes)
        differences = ', '.join(f'{value:.0e} ({part})' for part, value in rounding(teacher, images[0]).items())
        lines.append(
            f'| {args.pair} `{tap}` | {alone:.1f} | {computed:.1f} | {filling:.1f} | {read:.2f} '
            f'| {(computed - read) / (computed + alone):.0%} | {row:,} | {differences} |'
        )
    print('| pair, tap | student | teacher | filling | reading | saved of a step | bytes per sample | rounding |')
    print('|---' * 8 + '|', *lines, sep='\n')


if __name__ == '__main__':
    main()
