"""Samplers."""

from mmkd_ext.samplers.quota_batch_sampler import QuotaBatchSampler

__all__ = ['QuotaBatchSampler']
