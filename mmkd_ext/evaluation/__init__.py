"""How well classes were discovered, and how well images of a class are found."""

from mmkd_ext.evaluation.few_shot_metric import FewShotMetric
from mmkd_ext.evaluation.novel_class_metric import NovelClassMetric, Prediction, best_head, read_prediction
from mmkd_ext.evaluation.retrieval_metric import EmbeddedSample, RetrievalMetric, read_embedding

__all__ = [
    'EmbeddedSample',
    'FewShotMetric',
    'NovelClassMetric',
    'Prediction',
    'RetrievalMetric',
    'best_head',
    'read_embedding',
    'read_prediction',
]
