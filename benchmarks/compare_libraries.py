"""What is written by hand here, against the library that would do it: ``docs/libraries.md`` has the decisions.

Run by parts, ``OMP_NUM_THREADS=1 python benchmarks/compare_libraries.py neighbours transforms``; without words, all.
Contestants run in turn, so that what else the machine does meets all alike; figures are medians of CPU seconds of one
thread, warm-up left out. A library that is not installed is named and left out.
"""

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmkd_ext.clustering.kmeans import constrained_lloyd, semi_supervised_kmeans
from mmkd_ext.functional.metric_learning import contrastive_loss, triplet_loss
from mmkd_ext.ops.build import build_library
from mmkd_ext.ops.random import counter_keys
from mmkd_ext.scores.neighbours import nearest_neighbours
from mmkd_ext.transforms import BatchColorJitter, BatchCompose, BatchDraws, BatchRandomFlip, BatchRandomResizedCrop
from mmkd_ext.transforms.colour import BRIGHTNESS, adjust_light

LIBRARIES = ('torch', 'torchvision', 'faiss-cpu', 'kornia', 'pytorch-metric-learning', 'torchdata', 'scikit-learn')


def race(title: str, contestants: dict[str, Callable[[], Any]], rounds: int) -> None:
    """Print the median CPU seconds of each, and its ratio to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, function in contestants.items():
            start = time.process_time()
            function()
            if number:
                seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = next(iter(medians.values()))
    row = ', '.join(f'{name} {value:.4g} s ({value / first:.2f} x)' for name, value in medians.items())
    print(f'{title}: {row}', flush=True)


def neighbours(rounds: int) -> None:
    """Eight nearest of a set with itself: time, and lists that differ from a sort of float64 distances."""

    def by_faiss(x: torch.Tensor) -> torch.Tensor:
        index = faiss.IndexFlatL2(x.shape[1])
        index.add(x.numpy())
        return torch.from_numpy(index.search(x.numpy(), 9)[1])[:, 1:]

    def by_topk(x: torch.Tensor) -> torch.Tensor:
        half = x.square().sum(dim=1) / 2
        return torch.cat([torch.addmm(-half, rows, x.T).topk(9).indices[:, 1:] for rows in x.split(512)])

    def by_cdist(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.cdist(rows, x).topk(9, largest=False).indices[:, 1:] for rows in x.split(512)])

    contestants = {'ours': lambda x: nearest_neighbours(x, k=8), 'topk': by_topk, 'cdist': by_cdist}
    try:
        import faiss
    except ImportError:
        print('faiss-cpu is not installed')
    else:
        faiss.omp_set_num_threads(1)
        contestants['faiss'] = by_faiss
    codes = torch.randint(-2, 3, (1000, 8)).float()
    near = torch.nn.functional.normalize(1 + 1e-3 * torch.randn(1000, 512))
    for title, x in (('codes 1000 x 8', codes), ('almost collapsed 1000 x 512', near)):
        square = torch.stack([(x.double() - row).square().sum(dim=1) for row in x.double()])
        square.fill_diagonal_(torch.inf)
        exact = square.argsort(dim=1, stable=True)[:, :8]
        wrong = {name: int((f(x) != exact).any(dim=1).sum()) for name, f in contestants.items()}
        print(f'lists of {title} that are not those of float64: {wrong}')
    for size, dims in ((5000, 128), (20_000, 512)):
        x = torch.nn.functional.normalize(torch.randn(size, dims))
        race(f'neighbours {size} x {dims}', {n: lambda f=f, x=x: f(x) for n, f in contestants.items()}, rounds)


def transforms(rounds: int) -> None:
    """Random resized crop, flip and colour jitter of a batch; and whether brightness is PIL's."""
    from PIL import Image, ImageEnhance
    from torchvision.transforms import v2

    try:
        from kornia import augmentation
    except ImportError:
        augmentation = None
        print('kornia is not installed')
    jitter = {'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.2, 'hue': 0.1}
    for batch, side in ((512, 32), (64, 224)):
        images = torch.randint(256, (batch, 3, side, side), dtype=torch.uint8)
        ours = BatchCompose([BatchRandomResizedCrop(side), BatchRandomFlip(), BatchColorJitter(**jitter)])
        one = v2.Compose(
            [v2.RandomResizedCrop(side, antialias=True), v2.RandomHorizontalFlip(), v2.ColorJitter(**jitter)]
        )
        contestants = {
            'ours': lambda i=images, t=ours: t(i, BatchDraws(counter_keys(0, np.arange(len(i))))),
            'torchvision, image by image': lambda i=images, t=one: torch.stack([t(image) for image in i]),
        }
        if augmentation:
            three = torch.nn.Sequential(
                augmentation.RandomResizedCrop((side, side)),
                augmentation.RandomHorizontalFlip(),
                augmentation.ColorJitter(**jitter, p=1.0),
            )
            contestants['kornia, floats'] = lambda i=images, t=three: t(i.float() / 255)
        race(f'crop, flip, colour {batch} x 3 x {side} x {side}', contestants, rounds)
    image = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    pil = Image.fromarray(image.permute(1, 2, 0).numpy())
    expected = torch.from_numpy(np.array(ImageEnhance.Brightness(pil).enhance(1.3))).permute(2, 0, 1)
    found = {
        'ours': adjust_light(image[None], torch.tensor([BRIGHTNESS]), torch.tensor([1.3]))[0],
        'torchvision': v2.functional.adjust_brightness(image, 1.3),
    }
    if augmentation:
        from kornia.enhance import adjust_brightness_accumulative

        found['kornia'] = (adjust_brightness_accumulative(image.float() / 255, 1.3) * 255).to(torch.uint8)
    print(
        "grey levels of brightness that are not PIL's:",
        {n: float((x != expected).float().mean()) for n, x in found.items()},
    )


def metric(rounds: int) -> None:
    """Forward and backward of losses with mining; what NaN gives; whether draws can be repeated."""
    try:
        from pytorch_metric_learning import distances, losses, miners
    except ImportError:
        print('pytorch-metric-learning is not installed')
        return
    plain = distances.LpDistance(normalize_embeddings=False)
    loss = losses.TripletMarginLoss(margin=0.2, distance=plain)
    mining = {
        'semi-hard': miners.TripletMarginMiner(margin=0.2, type_of_triplets='semihard', distance=plain),
        'hard': miners.BatchEasyHardMiner('all', 'hard', distance=plain),
        'distance': miners.DistanceWeightedMiner(),
    }
    for size in (128, 512):
        x = torch.nn.functional.normalize(torch.randn(size, 512))
        labels = torch.arange(size) // 4

        def step(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor = x) -> None:
            leaf = x.clone().requires_grad_()
            function(leaf).backward()

        for word in ('all', *mining):
            theirs = (
                (lambda e, y=labels: loss(e, y))
                if word == 'all'
                else (lambda e, y=labels, m=mining[word]: loss(e, y, m(e, y)))
            )
            ours = lambda e, y=labels, w=word: triplet_loss(e, y, mining=w)  # noqa: E731
            race(
                f'triplet {word} {size} x 512',
                {'ours': lambda f=ours: step(f), 'library': lambda f=theirs: step(f)},
                rounds,
            )
    x = torch.randn(8, 4)
    x[3, 1] = torch.nan
    labels = torch.arange(8) // 2
    print('triplet of NaN in the library:', float(loss(x, labels)))
    for function in (triplet_loss, contrastive_loss):
        try:
            print(function.__name__, float(function(x, labels)))
        except ValueError as error:  # noqa: PERF203
            print(f'{function.__name__} of NaN: ValueError, {str(error)[:70]}')
    x = torch.nn.functional.normalize(torch.randn(64, 16))
    labels = torch.arange(64) // 4
    twice = [float(triplet_loss(x, labels, mining='distance', seed=1, step=7)) for _ in range(2)]
    library = [float(loss(x, labels, mining['distance'](x, labels))) for _ in range(2)]
    print('distance mining twice at one step: ours', twice, 'library', library)


class Augmented(torch.utils.data.Dataset):
    """Samples that draw from the three global generators, as image transforms do."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def resume(rounds: int) -> None:
    """Stop after three batches of eight, go on in a new loader: the same samples and draws?"""
    try:
        from torchdata.stateful_dataloader import StatefulDataLoader
    except ImportError:
        print('torchdata is not installed')
        return
    for workers in (0, 2):
        state, whole = None, []
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        loader = StatefulDataLoader(Augmented(), batch_size=8, shuffle=True, num_workers=workers)
        for number, batch in enumerate(loader):
            whole.append(torch.stack([part.double() for part in batch]))
            if number == 2:
                state = loader.state_dict()
        torch.manual_seed(99)
        random.seed(99)
        np.random.seed(99)  # noqa: NPY002
        loader = StatefulDataLoader(Augmented(), batch_size=8, shuffle=True, num_workers=workers)
        start = time.perf_counter()
        loader.load_state_dict(state)
        rest = [torch.stack([part.double() for part in batch]) for batch in loader]
        same = (torch.stack(rest) == torch.stack(whole[3:])).all(dim=(0, 2)) if len(rest) == 5 else None
        names = ('order', 'python', 'numpy', 'torch')
        kept = dict(zip(names, same.tolist(), strict=True)) if same is not None else f'{len(rest)} batches, not 5'
        print(f'StatefulDataLoader, {workers} workers, kept on resume: {kept}; {time.perf_counter() - start:.2f} s')


def build(rounds: int) -> None:
    """Seconds until the C kernel is there: compiled, and from the cache."""
    from torch.utils import cpp_extension

    source = Path(sys.modules['mmkd_ext.ops.build'].__file__).parent / 'angle.c'
    with tempfile.TemporaryDirectory() as folder:
        os.environ['XDG_CACHE_HOME'] = folder
        for state in ('compiled', 'cached'):
            start = time.perf_counter()
            build_library(source, ['REAL=float'])
            print(f'ours, {state}: {time.perf_counter() - start:.2f} s')
        if not shutil.which('ninja'):
            print('ninja is not installed: cpp_extension.load raises RuntimeError')
            return
        code = Path(folder) / 'kernel.cpp'
        code.write_text('#include <torch/extension.h>\nPYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {}\n')
        for state in ('compiled', 'cached'):
            start = time.perf_counter()
            cpp_extension.load('kernel', [str(code)], build_directory=folder)
            print(f'cpp_extension.load of an empty module, {state}: {time.perf_counter() - start:.2f} s')


def seeding(rounds: int) -> None:
    """One start of k-means: ours and scikit-learn's, then the same iterations."""
    from sklearn.cluster import kmeans_plusplus

    size, dims, clusters = 5421, 1280, 81
    rng = np.random.default_rng(0)
    true = rng.integers(0, clusters, size)
    x = (rng.normal(size=(clusters, dims))[true] * 0.5 + rng.normal(size=(size, dims))).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = np.full(size, -1)
    contestants = {
        'ours, with one iteration': lambda: semi_supervised_kmeans(x, labels, clusters, num_inits=1, max_iters=1),
        'kmeans_plusplus alone': lambda: kmeans_plusplus(x, clusters, random_state=0),
    }
    race(f'seeding {size} x {dims}, {clusters} clusters', contestants, rounds)
    ours = [semi_supervised_kmeans(x, labels, clusters, num_inits=1, seed=seed).inertia for seed in range(5)]
    theirs = [
        constrained_lloyd(x, labels, kmeans_plusplus(x, clusters, random_state=seed)[0]).inertia for seed in range(5)
    ]
    print(f'inertia after Lloyd, five starts: ours {np.mean(ours):.1f}, from kmeans_plusplus {np.mean(theirs):.1f}')
    some = np.where((true < 40) & (np.arange(size) % 2 == 0), true, -1)
    start = time.process_time()
    found = semi_supervised_kmeans(x, some, clusters)
    print(f'ten starts with 40 labelled classes: {time.process_time() - start:.1f} s, inertia {found.inertia:.2f}')


PARTS = {f.__name__: f for f in (neighbours, transforms, metric, resume, build, seeding)}


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('parts', nargs='*', help=f'of {", ".join(PARTS)}; all by default')
    parser.add_argument('--rounds', type=int, default=5, help='runs that each median is of')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in LIBRARIES:
        try:
            print(f'{name} {metadata.version(name)}', end='; ')
        except metadata.PackageNotFoundError:  # noqa: PERF203
            print(f'{name} missing', end='; ')
    print()
    for name in arguments.parts or PARTS:
        torch.manual_seed(0)
        PARTS[name](arguments.rounds)


if __name__ == '__main__':
    main()
