"""How good something is, as pure functions: clusterings, retrieval, similarity of representations."""

from mmkd_ext.scores.cluster_accuracy import (
    UNMATCHED,
    Contingency,
    adjusted_rand_index,
    cluster_accuracy,
    contingency_table,
    match_clusters,
    normalized_mutual_info,
)
from mmkd_ext.scores.neighbours import nearest_neighbours
from mmkd_ext.scores.retrieval import recall_at_k, retrieval_scores
from mmkd_ext.scores.similarity import collapse, linear_cka

__all__ = [
    'UNMATCHED',
    'Contingency',
    'adjusted_rand_index',
    'cluster_accuracy',
    'collapse',
    'contingency_table',
    'linear_cka',
    'match_clusters',
    'nearest_neighbours',
    'normalized_mutual_info',
    'recall_at_k',
    'retrieval_scores',
]
