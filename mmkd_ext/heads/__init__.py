"""Heads: cosine classification of known classes, multi-head discovery of novel ones, embeddings."""

from mmkd_ext.heads.cluster_head import ClusterHead
from mmkd_ext.heads.contrastive_head import ContrastiveHead
from mmkd_ext.heads.embedding_head import EmbeddingHead
from mmkd_ext.heads.novel_head import MultiLinear, NovelHead
from mmkd_ext.heads.prototypes import CosineHead, Prototypes

__all__ = ['ClusterHead', 'ContrastiveHead', 'CosineHead', 'EmbeddingHead', 'MultiLinear', 'NovelHead', 'Prototypes']
