"""Attention transfer between feature maps.

Shape suffixes: N samples, C channels, Y rows and X columns of a map, P = Y X positions.
"""

from torch import Tensor
from torch.nn import functional

from mmkd_ext.ops.arguments import check_dims, check_pair, full_precision, unit_rows

_SMALLEST = 1e-6


@full_precision
def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    r"""How differently two networks spread their activity over the image.

    .. math:: \ell = \frac{1}{N P} \sum_n \Big\lVert \frac{a(t_n)}{\lVert a(t_n) \rVert_2} -
        \frac{a(s_n)}{\lVert a(s_n) \rVert_2} \Big\rVert^2, \qquad a(x)_p = \frac{1}{C} \sum_c x_{cp}^2

    No relation between samples: every image for itself. Blind to which channels are active, to signs, and to one scale
    per image; numbers of channels may differ.

    From "Paying More Attention to Attention", Zagoruyko & Komodakis, ICLR 2017, arXiv 1612.03928, with the norm
    squared, in the form of the official code of RKD (lenscloth/RKD), which compares with it on layers 2 to 4.

    Each image is first divided by its largest magnitude, which the loss cannot see: squares of squares of large
    activations leave float32. An image without any activity (below 1e-6) has a map near zero and a bounded gradient.

    Args:
        student: Feature maps :math:`s`, shape (N, C, Y, X).
        teacher: Feature maps :math:`t` of the same images, shape (N, C', Y', X'); no gradient flows to them. Of two
            sizes, both activity maps are average-pooled to the smaller.

    Returns:
        Loss, a scalar; a differentiable 0 for an empty batch.

    Raises:
        ValueError: If there are not four dimensions, the numbers of samples differ, or a value is NaN
            (:func:`check_pair`).

    Example:
        >>> x = torch.rand(2, 8, 4, 4)
        >>> attention_transfer(3 * x, x) < 1e-6  # blind to scale
        tensor(True)
    """
    caller = 'attention_transfer'
    check_dims(caller, 'N C Y X', student=student, teacher=teacher)
    check_pair(caller, student, teacher)
    if len(student) == 0:
        return student[:0].sum()
    height, width = map(min, student.shape[2:], teacher.shape[2:])
    size = height, width
    return (_attention(student, size) - _attention(teacher.detach(), size)).square().mean()


def _attention(x_NCYX: Tensor, size: tuple[int, int]) -> Tensor:
    peak_N111 = x_NCYX.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
    activity_NYX = (x_NCYX / peak_N111.clamp(min=_SMALLEST)).square().mean(dim=1)
    if activity_NYX.shape[1:] != size:
        activity_NYX = functional.adaptive_avg_pool2d(activity_NYX, size)
    return unit_rows(activity_NYX.flatten(1))
