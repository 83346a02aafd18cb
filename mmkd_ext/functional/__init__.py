"""The papers' mathematics: pure functions of tensors, without state and without any mm* package.

==========================  ======================================================================  ===============
function                    what it says                                                            source
==========================  ======================================================================  ===============
``rkd_distance``            distances between samples, over their mean, are alike                   RKD
``rkd_angle``               angles of the triangles of samples are alike                            RKD
``tuple_relation``          a relation of n samples is alike, on tuples drawn at random             RKD, general form
``similarity_preserving``   a sample's similarities spread alike over the batch                     SP
``correlation_congruence``  a kernel relates samples alike                                          CCKD
``intra_category``          samples lie alike around the centre of their category                   CSKD
``inter_category``          centres of categories are turned alike towards each other               CSKD
``centre_regulariser``      samples lie close to the centre of their category                       CSKD's code
``hard_dark_rank``          neighbours have the same order                                          DarkRank
``attention_transfer``      activity spreads alike over the image                                   AT
``class_relation_kd``       an unlabelled sample relates to known classes as the teacher says       Cr-KD
``swapped_prediction``      each view predicts the targets of the other views                       UNO
``sinkhorn_knopp``          pseudo-labels that use all prototypes equally                           SwAV, UNO
``soft_target``             the student predicts the teacher's softened prediction                  Hinton et al.
``cluster_accuracy``        accuracy after the best matching of clusters to classes (v1, v2, v3)    GCD
``normalized_mutual_info``  information shared by clusters and classes                              arithmetic mean
``adjusted_rand_index``     pairs on which clusters and classes agree, corrected for chance         Hubert, Arabie
``superclasses``            clusters of features, large enough to sample from                       CCKD (SUR)
``linear_cka``              how alike two representations are, for reports                          CKA
``collapse``                how far a representation has shrunk to one point, for reports
``pool_map``                a dense map as one vector per image
``sample_tokens``           a dense map as samples at random positions, alike in both networks
``gather_with_grad``        one batch out of the batches of all processes
``sum_with_grad``           one loss out of the parts of all processes
==========================  ======================================================================  ===============

Losses take (student, teacher), let no gradient into the teacher, compute in at least float32 whatever autocast says,
and are finite for finite input. Defaults reproduce the official code; arguments give the papers' variants.
"""

from mmkd_ext.functional.attention import attention_transfer
from mmkd_ext.functional.cckd import correlation_congruence
from mmkd_ext.functional.clustering import adjusted_rand_index, cluster_accuracy, normalized_mutual_info
from mmkd_ext.functional.crkd import class_relation_kd
from mmkd_ext.functional.cskd import centre_regulariser, inter_category, intra_category
from mmkd_ext.functional.darkrank import hard_dark_rank
from mmkd_ext.functional.gather import gather_with_grad, sum_with_grad
from mmkd_ext.functional.kd import soft_target
from mmkd_ext.functional.kmeans import superclasses
from mmkd_ext.functional.maps import pool_map, sample_tokens
from mmkd_ext.functional.ncd import swapped_prediction
from mmkd_ext.functional.potentials import (
    analogy_potential,
    angle_potential,
    distance_potential,
    simplex_potential,
)
from mmkd_ext.functional.rkd import rkd_angle, rkd_distance
from mmkd_ext.functional.similarity import collapse, linear_cka
from mmkd_ext.functional.sinkhorn import sinkhorn_knopp
from mmkd_ext.functional.sp import similarity_preserving
from mmkd_ext.functional.tuples import keep_tuples, sample_tuples, tuple_relation

__all__ = [
    'adjusted_rand_index',
    'analogy_potential',
    'angle_potential',
    'attention_transfer',
    'centre_regulariser',
    'class_relation_kd',
    'cluster_accuracy',
    'collapse',
    'correlation_congruence',
    'distance_potential',
    'gather_with_grad',
    'hard_dark_rank',
    'inter_category',
    'intra_category',
    'keep_tuples',
    'linear_cka',
    'normalized_mutual_info',
    'pool_map',
    'rkd_angle',
    'rkd_distance',
    'sample_tokens',
    'sample_tuples',
    'similarity_preserving',
    'simplex_potential',
    'sinkhorn_knopp',
    'soft_target',
    'sum_with_grad',
    'superclasses',
    'swapped_prediction',
    'tuple_relation',
]
