"""Measure what sampling costs: the plan of an epoch, and the clusters of SUR.

    OMP_NUM_THREADS=1 python benchmarks/measure_samplers.py plan
    OMP_NUM_THREADS=1 python benchmarks/measure_samplers.py kmeans 50000 512 100

``plan``: 1.2 million samples of 1000 classes, balanced and with sizes that fall geometrically to one; seconds to the
first batch, microseconds for each, peak of memory. ``kmeans``: CPU seconds of both algorithms on N unit features of D
dims around 100 directions, and the mean squared distance to the centre that each reaches.
"""

import argparse
import time
import tracemalloc

import numpy as np
from mmengine.dataset import DefaultSampler
from sklearn.cluster import KMeans, MiniBatchKMeans

from mmkd_ext.ops.arguments import unit_features
from mmkd_ext.samplers import ClassUniformBatchSampler

SIZES = {
    'balanced': np.full(1000, 1200),
    'imbalanced': np.maximum(np.geomspace(11_730, 0.6, 1000), 1).astype(int),
}


class Labels:
    """A data set of nothing but labels."""

    def __init__(self, sizes: np.ndarray) -> None:
        self.labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))

    def __len__(self) -> int:
        return len(self.labels)

    def get_gt_labels(self) -> np.ndarray:
        """Return one label per sample."""
        return self.labels


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    plan = commands.add_parser('plan')
    plan.add_argument('--batch-size', type=int, default=64)
    kmeans = commands.add_parser('kmeans')
    for name in ('num_samples', 'num_dims', 'num_clusters'):
        kmeans.add_argument(name, type=int)
    return parser.parse_args()


def measure_plan(batch_size: int) -> None:
    """Print one row per data set and number of processes."""
    print('data        samples  processes  first batch (s)  each batch (us)  peak (MB)')
    for name, sizes in SIZES.items():
        for world_size in (1, 64):
            sampler = DefaultSampler(Labels(sizes), seed=0)
            sampler.world_size = world_size
            tracemalloc.start()
            next(iter(ClassUniformBatchSampler(sampler, batch_size, 4, semantics='local')))
            peak = tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            began = time.process_time()
            iterator = iter(ClassUniformBatchSampler(sampler, batch_size, 4, semantics='local'))
            next(iterator)
            first = time.process_time() - began
            began = time.process_time()
            num_batches = sum(1 for _ in iterator)
            each = (time.process_time() - began) / num_batches * 1e6
            print(f'{name:10} {sizes.sum():8}  {world_size:9}  {first:15.2f}  {each:15.1f}  {peak:9.0f}')


def measure_kmeans(num_samples: int, num_dims: int, num_clusters: int) -> None:
    """Print one row per algorithm."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(100, num_dims)).astype(np.float32)
    noise = generator.normal(size=(num_samples, num_dims)).astype(np.float32)
    features = centres[generator.integers(100, size=num_samples)] + 1.5 * noise
    features = unit_features(features)
    # The arguments are those of mmkd_ext.functional.superclasses.
    for model in (
        KMeans(num_clusters, n_init=1, random_state=0),
        MiniBatchKMeans(num_clusters, n_init=1, random_state=0, batch_size=4096, reassignment_ratio=0),
    ):
        began = time.process_time()
        model.fit(features)
        seconds = time.process_time() - began
        distance = -model.score(features) / num_samples
        smallest = np.bincount(model.labels_, minlength=num_clusters).min()
        print(f'{type(model).__name__:15} {seconds:6.1f} s  distance {distance:.4f}  smallest cluster {smallest}')


def main() -> None:
    """Run one measurement."""
    args = parse_args()
    if args.command == 'plan':
        measure_plan(args.batch_size)
    else:
        measure_kmeans(args.num_samples, args.num_dims, args.num_clusters)


if __name__ == '__main__':
    main()
