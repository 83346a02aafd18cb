"""A neck for backbones whose last map is not yet pooled."""

from torch import nn

from mmkd_ext.registry import MODELS

__all__ = ['MaxPooling']


@MODELS.register_module()
class MaxPooling(nn.MaxPool2d):
    """Max pooling as a neck, (B, C, h, w) to (B, C, h // k, w // k); arguments are those of ``torch.nn.MaxPool2d``.

    After :class:`~mmkd_ext.models.ConvNet`, which pools between its stages, ``MaxPooling(kernel_size=2)`` makes the
    four-layer network of few-shot learning, which pools after each: 64 numbers of 28 x 28 pixels, 1600 of 84 x 84.
    """
