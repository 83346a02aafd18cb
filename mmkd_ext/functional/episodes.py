"""Few-shot tasks drawn from labelled samples.

Shape suffixes: N samples, G classes, M samples of the largest class; E episodes, W ways, S samples of each way.
"""

import numpy as np

__all__ = ['draw_episodes']


def draw_episodes(
    labels: np.ndarray, num_ways: int, num_samples: int, num_episodes: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw episodes: different classes, and different samples of each.

    Args:
        labels: (N,), any integers.
        num_ways: W.
        num_samples: S, shots and queries of a class together.
        num_episodes: E.
        generator: Source of all chance.

    Returns:
        Indices of samples, (E, W, S) int64, in random order within a way.

    Raises:
        ValueError: If there are fewer than W classes, or a class has fewer than S samples.
    """
    _, label_N, size_G = np.unique(labels, return_inverse=True, return_counts=True)
    num_small = np.count_nonzero(size_G < num_samples)
    if len(size_G) < num_ways or num_small:
        raise ValueError(
            f'draw_episodes: expected at least {num_ways} classes, each with at least {num_samples} samples, but got '
            f'{len(size_G)}, of which {num_small} are smaller; ask for fewer ways, shots or queries'
        )
    by_class_N = np.argsort(label_N, kind='stable')
    first_G = np.cumsum(size_G) - size_G
    episodes = np.empty((num_episodes, num_ways, num_samples), dtype=np.int64)
    for episode in episodes:
        ways = generator.choice(len(size_G), num_ways, replace=False)
        key_WM = generator.random((num_ways, size_G.max()))
        key_WM[np.arange(size_G.max()) >= size_G[ways, None]] = np.inf
        episode[:] = by_class_N[first_G[ways, None] + key_WM.argsort(axis=1)[:, :num_samples]]
    return episodes
