"""Groups of feature vectors, and how many there are, as pure functions."""

from mmkd_ext.clustering.kmeans import Clustering, semi_supervised_kmeans, superclasses
from mmkd_ext.clustering.num_classes import CurvePoint, NumClasses, estimate_num_classes

__all__ = ['Clustering', 'CurvePoint', 'NumClasses', 'estimate_num_classes', 'semi_supervised_kmeans', 'superclasses']
