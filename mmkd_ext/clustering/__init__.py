"""Groups of feature vectors, and how many there are, as pure functions."""

from mmkd_ext.clustering.discriminant import Whitening, within_class_whitening
from mmkd_ext.clustering.feature_discovery import FeatureDiscovery, feature_discovery
from mmkd_ext.clustering.kmeans import Clustering, semi_supervised_kmeans, superclasses
from mmkd_ext.clustering.labelled_ward import LabelledTree, labelled_ward
from mmkd_ext.clustering.num_classes import CurvePoint, NumClasses, estimate_num_classes

__all__ = [
    'Clustering',
    'CurvePoint',
    'FeatureDiscovery',
    'LabelledTree',
    'NumClasses',
    'Whitening',
    'estimate_num_classes',
    'feature_discovery',
    'labelled_ward',
    'semi_supervised_kmeans',
    'superclasses',
    'within_class_whitening',
]
