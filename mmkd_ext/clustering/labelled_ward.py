"""Ward's agglomeration in which labelled samples of a class are one cluster from the start, and classes never merge.

One tree holds the clusterings into every number of classes, from the known classes alone upwards.

Shape suffixes: N samples, K known classes, S steps (merges), U nodes.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ['LabelledTree', 'labelled_ward']


@dataclass(frozen=True)
class LabelledTree:
    """Merges of clusters, cheapest first.

    Attributes:
        labels_N: As given.
        height_S: Increase of the sum of squares of each merge, ascending.
        pair_S2: The nodes that merge: 0..K-1 are known classes, K.. the unlabelled samples in order.
    """

    labels_N: np.ndarray
    height_S: np.ndarray
    pair_S2: np.ndarray

    @property
    def num_known(self) -> int:
        """K."""
        return int(self.labels_N.max(initial=-1)) + 1

    @property
    def num_nodes(self) -> int:
        """The largest number of clusters, which counts known classes and unlabelled samples."""
        return self.num_known + int(np.count_nonzero(self.labels_N < 0))

    def num_clusters_at(self, height: float) -> int:
        """Number of clusters after all merges of at most a height."""
        return self.num_nodes - int(np.searchsorted(self.height_S, height, side='right'))

    def cut(self, num_clusters: int) -> np.ndarray:
        """Clusters, (N,) int64: the known classes 0..K-1 by their numbers, the others from the largest downwards."""
        smallest = self.num_nodes - len(self.height_S)
        if not smallest <= num_clusters <= self.num_nodes:
            raise ValueError(
                f'LabelledTree.cut: expected {smallest} to {self.num_nodes} clusters but got {num_clusters}; there are '
                f'{self.num_known} known classes'
            )
        parent_U = np.arange(self.num_nodes)
        for first, second in self.pair_S2[: self.num_nodes - num_clusters]:
            low, high = sorted((_root(parent_U, first), _root(parent_U, second)))
            parent_U[high] = low
        root_U = np.array([_root(parent_U, node) for node in range(self.num_nodes)], dtype=np.int64)
        num_known = self.num_known
        novel, place, size = np.unique(root_U[root_U >= num_known], return_inverse=True, return_counts=True)
        rank = np.empty(len(novel), dtype=np.int64)
        rank[np.argsort(-size, kind='stable')] = np.arange(len(novel))
        root_U[root_U >= num_known] = num_known + rank[place]
        ids_N = self.labels_N.astype(np.int64)
        ids_N[self.labels_N < 0] = root_U[num_known:]
        return ids_N


def labelled_ward(features_ND: np.ndarray, labels_N: np.ndarray) -> LabelledTree:
    r"""Build the tree by nearest-neighbour chains.

    Two clusters of sizes :math:`a`, :math:`b` and means :math:`m_a`, :math:`m_b` merge at
    :math:`ab / (a + b) \lVert m_a - m_b \rVert^2`. Two known classes are infinitely far apart, also after unlabelled
    samples have joined them; a distance that does not shrink by merging is what chains need, and infinity does not.

    Source: Ward, Hierarchical grouping to optimize an objective function, 1963; chains and update formula: Murtagh and
    Contreras, Algorithms for hierarchical clustering, 2012. Memory is 8 (K + U)^2 bytes for U unlabelled samples, time
    O((K + U)^2).

    Args:
        features_ND: (N, D) finite floats.
        labels_N: (N,) ints, classes 0..K-1 without gaps, -1 for unlabelled.

    Returns:
        The tree, of K clusters (one, if no class is known) upwards.
    """
    num_known = int(labels_N.max(initial=-1)) + 1
    free = np.flatnonzero(labels_N < 0)
    mean_KD = np.array([features_ND[labels_N == label].mean(axis=0, dtype=np.float64) for label in range(num_known)])
    node_UD = np.concatenate([mean_KD.reshape(num_known, features_ND.shape[1]), features_ND[free].astype(np.float64)])
    size_U = np.concatenate([np.bincount(labels_N[labels_N >= 0], minlength=num_known), np.ones(len(free))])
    square_U = np.square(node_UD).sum(axis=1)
    cost_UU = node_UD @ node_UD.T
    cost_UU *= -2
    cost_UU += square_U[:, None]
    cost_UU += square_U
    np.maximum(cost_UU, 0, out=cost_UU)
    for row, size in enumerate(size_U):
        cost_UU[row] *= size * size_U / (size + size_U)
    cost_UU[:num_known, :num_known] = np.inf
    np.fill_diagonal(cost_UU, np.inf)
    height_S, pair_S2 = _merge(cost_UU, size_U, num_known)
    order = np.argsort(height_S, kind='stable')
    return LabelledTree(labels_N, height_S[order], pair_S2[order])


def _merge(cost_UU: np.ndarray, size_U: np.ndarray, num_known: int) -> tuple[np.ndarray, np.ndarray]:
    """Merge mutually nearest clusters until known classes alone are left. A cluster that swallows keeps its row."""
    alive_U = np.ones(len(size_U), dtype=bool)
    heights: list[float] = []
    pairs: list[tuple[int, int]] = []
    chain: list[int] = []
    for _ in range(len(size_U) - max(num_known, 1)):
        if not chain:
            chain = [num_known + int(alive_U[num_known:].argmax())]
        while True:
            last = chain[-1]
            nearest = int(cost_UU[last].argmin())
            if len(chain) > 1 and cost_UU[last, chain[-2]] <= cost_UU[last, nearest]:
                break
            chain.append(nearest)
        kept, gone = sorted((chain.pop(), chain.pop()))  # known classes come first, so they are kept
        height = float(cost_UU[kept, gone])
        a, b = size_U[kept], size_U[gone]
        new_U = ((a + size_U) * cost_UU[kept] + (b + size_U) * cost_UU[gone] - size_U * height) / (a + b + size_U)
        alive_U[gone] = False
        new_U[~alive_U] = np.inf
        new_U[kept] = np.inf
        if kept < num_known:
            new_U[:num_known] = np.inf
        cost_UU[kept], cost_UU[:, kept] = new_U, new_U
        cost_UU[gone], cost_UU[:, gone] = np.inf, np.inf
        size_U[kept] = a + b
        heights.append(height)
        pairs.append((kept, gone))
    return np.array(heights), np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _root(parent_U: np.ndarray, node: int) -> int:
    while parent_U[node] != node:
        parent_U[node] = parent_U[parent_U[node]]
        node = parent_U[node]
    return int(node)
