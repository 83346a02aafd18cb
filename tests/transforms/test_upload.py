import numpy as np
import pytest
import torch

from mmkd_ext.transforms.batch import upload


def test_values_shape_and_dtype():
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T  # not contiguous
    tensor = upload(array, torch.device('cpu'))
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.parametrize('device', ['meta', pytest.param('cuda', marks=pytest.mark.gpu)])
def test_device(device):
    if device == 'cuda' and not torch.cuda.is_available():
        pytest.skip('no GPU')
    tensor = upload(np.arange(3), torch.device(device))
    assert tensor.device.type == device
    assert tensor.shape == (3,)
