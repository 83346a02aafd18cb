"""The papers' mathematics: pure functions of tensors, without state and without any mm* package.

===========================  =======================================================================  =================
function                     what it says                                                             source
===========================  =======================================================================  =================
``rkd_distance``             distances between samples, over their mean, are alike                    RKD
``rkd_angle``                angles of the triangles of samples are alike                             RKD
``tuple_relation``           a relation of n samples is alike, on tuples drawn at random              RKD, general form
``similarity_preserving``    a sample's similarities spread alike over the batch                      SP
``correlation_congruence``   a kernel relates samples alike                                           CCKD
``probabilistic_transfer``   a sample is taken for the others with like probabilities                 PKT
``patch_relation``           patches of an image relate alike                                         DINOv3, PaKa
``intra_category``           samples lie alike around the centre of their category                    CSKD
``inter_category``           centres of categories are turned alike towards each other                CSKD
``centre_regulariser``       samples lie close to the centre of their category                        CSKD's code
``prediction_correlation``   predictions correlate, along classes and along samples                   DIST
``batch_class_correlation``  predictions overlap alike, between samples and between classes           MLKD
``similarity_direction``     similarities of samples differ little in units of their own spread       SKD
``class_transport``          predictions are a short way apart, along related classes                 WKD-L
``class_costs``              how unlike a teacher's classes are                                       WKD-L
``hard_dark_rank``           neighbours have the same order                                           DarkRank
``attention_transfer``       activity spreads alike over the image                                    AT
``soft_target``              the student predicts the teacher's softened prediction                   KD
``triplet_loss``             samples are nearer to those of their class than to others                FaceNet, RKD
``contrastive_loss``         samples of one class meet, others keep a distance                        Hadsell et al.
``prototypical_loss``        a query is nearest to the mean of its class                              Snell et al.
``nearest_prototype``        which class mean a query is nearest to                                   Snell et al.
``draw_episodes``            few-shot tasks drawn from labelled samples                               Snell et al.
``class_relation_kd``        an unlabelled sample relates to known classes as the teacher says        Cr-KD
``swapped_prediction``       each view predicts the targets of the other views                        UNO
``sinkhorn_knopp``           pseudo-labels that use all prototypes equally                            SwAV, UNO
``info_nce``                 a view of an image is told from other images by the image's other views  GCD
``supervised_contrastive``   labelled images of a class attract each other                            SupCon, GCD
``self_distillation``        each view predicts the sharper prediction of the other views             SimGCD
``mean_entropy_gap``         all classes are used alike on average                                    SimGCD
===========================  =======================================================================  =================

The potentials of ``tuple_relation`` are ``distance_potential``, ``angle_potential``, ``analogy_potential`` and
``simplex_potential``; ``sample_tuples`` draws its tuples, ``keep_tuples`` chooses those of an epoch.

Losses take (student, teacher), let no gradient into the teacher, compute in at least float32 whatever autocast says,
and are finite for finite input up to 1e18, whose squares float32 holds. Defaults reproduce the official code; arguments
give the papers' variants.
"""

from mmkd_ext.deprecation import moved
from mmkd_ext.functional.attention import attention_transfer
from mmkd_ext.functional.cckd import correlation_congruence
from mmkd_ext.functional.crkd import class_relation_kd
from mmkd_ext.functional.cskd import centre_regulariser, inter_category, intra_category
from mmkd_ext.functional.darkrank import hard_dark_rank
from mmkd_ext.functional.dist import prediction_correlation
from mmkd_ext.functional.gcd import info_nce, supervised_contrastive
from mmkd_ext.functional.kd import soft_target
from mmkd_ext.functional.metric_learning import contrastive_loss, triplet_loss
from mmkd_ext.functional.mlkd import batch_class_correlation
from mmkd_ext.functional.patches import patch_relation
from mmkd_ext.functional.pkt import probabilistic_transfer
from mmkd_ext.functional.prototypical import draw_episodes, nearest_prototype, prototypical_loss
from mmkd_ext.functional.rkd import rkd_angle, rkd_distance
from mmkd_ext.functional.simgcd import mean_entropy_gap, self_distillation
from mmkd_ext.functional.skd import similarity_direction
from mmkd_ext.functional.sp import similarity_preserving
from mmkd_ext.functional.tuples import (
    analogy_potential,
    angle_potential,
    distance_potential,
    keep_tuples,
    sample_tuples,
    simplex_potential,
    tuple_relation,
)
from mmkd_ext.functional.uno import sinkhorn_knopp, swapped_prediction
from mmkd_ext.functional.wkd import class_costs, class_transport

__all__ = [
    'analogy_potential',
    'angle_potential',
    'attention_transfer',
    'batch_class_correlation',
    'centre_regulariser',
    'class_costs',
    'class_relation_kd',
    'class_transport',
    'contrastive_loss',
    'correlation_congruence',
    'distance_potential',
    'draw_episodes',
    'hard_dark_rank',
    'info_nce',
    'inter_category',
    'intra_category',
    'keep_tuples',
    'mean_entropy_gap',
    'nearest_prototype',
    'patch_relation',
    'prediction_correlation',
    'probabilistic_transfer',
    'prototypical_loss',
    'rkd_angle',
    'rkd_distance',
    'sample_tuples',
    'self_distillation',
    'similarity_direction',
    'similarity_preserving',
    'simplex_potential',
    'sinkhorn_knopp',
    'soft_target',
    'supervised_contrastive',
    'swapped_prediction',
    'triplet_loss',
    'tuple_relation',
]

__getattr__ = moved(
    __name__,
    {
        'mmkd_ext.clustering': 'estimate_num_classes semi_supervised_kmeans superclasses',
        'mmkd_ext.distill.layer_choice': 'pair_factors pair_weights',
        'mmkd_ext.ops': 'angle_path gather_with_grad pool_map sample_positions sample_tokens sharing sum_with_grad',
        'mmkd_ext.scores': 'Contingency adjusted_rand_index cluster_accuracy collapse linear_cka nearest_neighbours '
        'normalized_mutual_info recall_at_k retrieval_scores',
    },
)
