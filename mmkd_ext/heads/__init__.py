"""Heads: cosine classification of known classes, multi-head discovery of novel ones, embeddings."""

from mmkd_ext.heads.embedding_head import EmbeddingHead
from mmkd_ext.heads.gcd import ClusterHead, ContrastiveHead
from mmkd_ext.heads.prototypes import CosineHead, MultiLinear, NovelHead, Prototypes

__all__ = ['ClusterHead', 'ContrastiveHead', 'CosineHead', 'EmbeddingHead', 'MultiLinear', 'NovelHead', 'Prototypes']
