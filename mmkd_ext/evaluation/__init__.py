"""How well classes were discovered."""

from mmkd_ext.evaluation.novel_class_metric import NovelClassMetric
from mmkd_ext.evaluation.prediction import Prediction, best_head, read_prediction

__all__ = ['NovelClassMetric', 'Prediction', 'best_head', 'read_prediction']
