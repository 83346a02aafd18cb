import numpy as np
import pytest
from mmengine.dataset import DefaultSampler

from mmkd_ext.samplers import SuperclassUniformBatchSampler


def build(num_samples=60, batch_size=8, k=4):
    return SuperclassUniformBatchSampler(DefaultSampler(range(num_samples), seed=0), batch_size, k)


def test_each_batch_is_m_superclasses_of_k_without_any_label():
    batches = build()
    ids = np.random.default_rng(0).integers(0, 5, size=60)
    batches.set_superclasses(ids)
    for batch in batches:
        assert np.unique(ids[batch], return_counts=True)[1].tolist() == [4, 4]


def test_its_length_is_known_before_the_superclasses_are():
    batches = build()
    assert len(batches) == 7
    batches.set_superclasses(np.arange(60) % 3)
    assert len(batches) == len(list(batches)) == 7


def test_errors():
    batches = build()
    with pytest.raises(RuntimeError, match=r'superclasses .*got none.*SuperclassHook'):
        next(iter(batches))
    with pytest.raises(ValueError, match=r'60 samples .*\(59,\)'):
        batches.set_superclasses(np.zeros(59, dtype=int))
    with pytest.raises(ValueError, match=r'smallest -1'):
        batches.set_superclasses(np.full(60, -1))
    with pytest.raises(ValueError, match=r'3 groups of 40 .*2 groups .* 2'):
        build(batch_size=120, k=40).set_superclasses(np.arange(60) % 2)
