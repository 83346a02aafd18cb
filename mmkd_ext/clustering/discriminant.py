"""What labelled classes tell about directions: within-class whitening and linear discriminants, in closed form.

Directions in which images of one class differ say nothing about the class. Whitening makes the spread within known
classes the same in all directions, which carries over to classes that nobody has labelled. The estimate of the spread
is shrunk towards a sphere by Ledoit and Wolf's closed form: few labelled images make a sphere, which changes nothing
but the scale, many make the covariance itself. No setting is left to tune.

Shape suffixes: N samples, L labelled samples, D dims, P kept dims, K classes.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ['Whitening', 'discriminant_scores', 'ledoit_wolf_shrinkage', 'principal_axes', 'within_class_whitening']

_ROWS = 8192
"""Rows that are converted to float64 at a time."""


@dataclass(frozen=True)
class Whitening:
    """A linear map after which known classes spread alike in all directions.

    Attributes:
        mean_D: Subtracted first, (D,) float64.
        map_DP: (D, P) float64.
        shrinkage: Share of the sphere in the covariance, in [0, 1]; 1 leaves principal components as they are.
    """

    mean_D: np.ndarray
    map_DP: np.ndarray
    shrinkage: float

    def apply(self, features_ND: np.ndarray) -> np.ndarray:
        """Map features and scale them to length 1, (N, P) float32; a row at the mean stays zero."""
        out_NP = np.empty((len(features_ND), self.map_DP.shape[1]), dtype=np.float32)
        for start in range(0, len(features_ND), _ROWS):
            rows = slice(start, start + _ROWS)
            mapped_MP = (features_ND[rows].astype(np.float64) - self.mean_D) @ self.map_DP
            length_M1 = np.linalg.norm(mapped_MP, axis=1, keepdims=True)
            out_NP[rows] = mapped_MP / np.where(length_M1 > 0, length_M1, 1)
        return out_NP


def principal_axes(features_ND: np.ndarray, num_dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and principal axes, largest variance first; axes without variance are left out.

    Args:
        features_ND: (N, D) finite floats.
        num_dims: Axes at most.

    Returns:
        Mean (D,) and axes (D, P) with 1 <= P <= num_dims, float64. The largest entry of an axis is positive.
    """
    mean_D = features_ND.mean(axis=0, dtype=np.float64)
    cov_DD = np.zeros((features_ND.shape[1],) * 2)
    for start in range(0, len(features_ND), _ROWS):
        centred_MD = features_ND[start : start + _ROWS] - mean_D
        cov_DD += centred_MD.T @ centred_MD
    variance_D, axis_DD = np.linalg.eigh(cov_DD)
    order = np.argsort(-variance_D, kind='stable')[:num_dims]
    kept = order[variance_D[order] > max(variance_D.max(), 0) * 1e-10]
    axis_DP = axis_DD[:, kept if len(kept) else order[:1]]
    sign_P = np.sign(np.take_along_axis(axis_DP, np.abs(axis_DP).argmax(axis=0)[None], axis=0))
    return mean_D, axis_DP * np.where(sign_P == 0, 1, sign_P)


def ledoit_wolf_shrinkage(centred_LD: np.ndarray) -> float:
    r"""Best share of a sphere in a covariance matrix, in the mean squared sense.

    :math:`\min(1, \bar b^2 / d^2)` with :math:`d^2 = \lVert S - \mu I \rVert^2`,
    :math:`\bar b^2 = L^{-2} \sum_l \lVert x_l x_l^T - S \rVert^2`, :math:`S = L^{-1} \sum_l x_l x_l^T` and
    :math:`\mu = \operatorname{tr} S / D`.

    Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004.

    Args:
        centred_LD: (L, D), deviations from the mean of the class.

    Returns:
        In [0, 1]; 1 where there is nothing to estimate from.
    """
    num_samples, num_dims = centred_LD.shape
    if not num_samples or not np.any(centred_LD):
        return 1.0
    cov_DD = centred_LD.T @ centred_LD / num_samples
    from_sphere = np.square(cov_DD).sum() - np.trace(cov_DD) ** 2 / num_dims
    noise = (np.square(np.square(centred_LD).sum(axis=1)).sum() / num_samples - np.square(cov_DD).sum()) / num_samples
    return float(np.clip(noise / from_sphere, 0, 1)) if from_sphere > 0 else 1.0


def within_class_whitening(
    features_ND: np.ndarray, labels_N: np.ndarray, *, num_dims: int = 512, shrinkage: float | None = None
) -> Whitening:
    """Whiten by the covariance of labelled samples around the means of their classes.

    Principal components of all samples first; in them the covariance :math:`W` within classes, shrunk, and the map
    :math:`W^{-1/2}` (up to a rotation, which no distance sees).

    Source: the first of the two steps of Fisher's linear discriminant analysis (Fukunaga, Introduction to Statistical
    Pattern Recognition, 1990, Ch. 10); known in speaker recognition as within-class covariance normalisation (Hatch,
    Kajarekar and Stolcke, 2006).

    Args:
        features_ND: (N, D) finite floats.
        labels_N: (N,) ints, -1 without a label.
        num_dims: Principal components at most.
        shrinkage: Share of the sphere in [0, 1]; None for :func:`ledoit_wolf_shrinkage`.

    Returns:
        The map. Without two labelled samples of a class it is that of the principal components.
    """
    mean_D, axis_DP = principal_axes(features_ND, num_dims)
    labelled = np.flatnonzero(labels_N >= 0)
    known_LP = (features_ND[labelled].astype(np.float64) - mean_D) @ axis_DP
    classes, ids_L = np.unique(labels_N[labelled], return_inverse=True)
    within_LP = known_LP - _class_means(known_LP, ids_L, len(classes))[ids_L]
    if np.abs(within_LP).max(initial=0) <= 1e-9 * max(np.abs(known_LP).max(initial=0), 1e-300):
        return Whitening(mean_D, axis_DP, 1.0)  # one sample, or copies of it, in each class
    share = ledoit_wolf_shrinkage(within_LP) if shrinkage is None else shrinkage
    cov_PP = within_LP.T @ within_LP / len(within_LP)
    scale = np.trace(cov_PP) / len(cov_PP)
    variance_P, vector_PP = np.linalg.eigh((1 - share) * cov_PP + share * scale * np.eye(len(cov_PP)))
    root_P = np.sqrt(np.maximum(variance_P, 1e-10 * scale))
    return Whitening(mean_D, axis_DP @ (vector_PP / root_P), share)


def discriminant_scores(
    features_ND: np.ndarray, ids_N: np.ndarray, num_classes: int, *, shrinkage: float = 0.1
) -> np.ndarray:
    r"""Log-probabilities, up to a constant of each row, of a linear discriminant fitted to the same samples.

    :math:`s_{nk} = x_n^T \Sigma^{-1} \mu_k - \mu_k^T \Sigma^{-1} \mu_k / 2 + \log \pi_k`: Gaussian classes of one
    covariance and of the shares :math:`\pi_k` of their samples, so classes may be of any size.

    Args:
        features_ND: (N, D).
        ids_N: Class of each sample, 0..K-1; one of -1 takes no part in the fit.
        num_classes: K.
        shrinkage: Share of the sphere in the covariance.

    Returns:
        (N, K) float64; -inf for a class without samples.
    """
    used = np.flatnonzero(ids_N >= 0)
    size_K = np.bincount(ids_N[used], minlength=num_classes)
    mean_KD = _class_means(features_ND[used], ids_N[used], num_classes)
    num_dims = features_ND.shape[1]
    cov_DD = np.zeros((num_dims, num_dims))
    for start in range(0, len(used), _ROWS):
        rows = used[start : start + _ROWS]
        within_MD = features_ND[rows] - mean_KD[ids_N[rows]]
        cov_DD += within_MD.T @ within_MD
    cov_DD /= max(len(used) - np.count_nonzero(size_K), 1)
    scale = np.trace(cov_DD) / num_dims
    # Where no class has a spread every distance is equally far: the sphere stands for it.
    cov_DD = (1 - shrinkage) * cov_DD + (shrinkage * scale or 1e-6) * np.eye(num_dims)
    weight_KD = np.linalg.solve(cov_DD, mean_KD.T).T
    with np.errstate(divide='ignore'):
        log_share_K = np.log(size_K / max(size_K.sum(), 1))
    return features_ND @ weight_KD.T - 0.5 * (weight_KD * mean_KD).sum(axis=1) + log_share_K


def _class_means(features_LD: np.ndarray, ids_L: np.ndarray, num_classes: int) -> np.ndarray:
    from scipy import sparse

    shape = (num_classes, len(ids_L))
    member_KL = sparse.csr_matrix((np.ones(len(ids_L)), (ids_L, np.arange(len(ids_L)))), shape=shape)
    size_K = np.bincount(ids_L, minlength=num_classes)
    return (member_KL @ features_LD.astype(np.float64)) / np.maximum(size_K, 1)[:, None]
