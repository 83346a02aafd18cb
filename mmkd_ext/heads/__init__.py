"""Heads: cosine classification of known classes, multi-head discovery of novel ones."""

from mmkd_ext.heads.cosine_head import CosineHead
from mmkd_ext.heads.multi_linear import MultiLinear
from mmkd_ext.heads.novel_head import NovelHead
from mmkd_ext.heads.prototypes import Prototypes

__all__ = ['CosineHead', 'MultiLinear', 'NovelHead', 'Prototypes']
