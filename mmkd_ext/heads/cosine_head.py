"""Classification head of the known classes."""

from mmengine.model import BaseModule
from torch import Tensor

from mmkd_ext.heads.prototypes import Prototypes
from mmkd_ext.registry import MODELS

__all__ = ['CosineHead']


@MODELS.register_module()
class CosineHead(BaseModule):
    """Known head of UNO and Cr-KD: cosines between the backbone's features and one unit prototype per known class.

    Args:
        in_channels: D, dimension of the features.
        num_classes: K, number of known classes.
        normalize_at_eval: ``False`` evaluates the prototypes as they were left by the last optimizer step,
            which is what the frozen teacher of the official Cr-KD code does. Only checkpoints converted from the
            official code show a difference: ours are saved with unit prototypes.
        init_cfg: Initialisation, as in mmengine.
    """

    def __init__(
        self, in_channels: int, num_classes: int, normalize_at_eval: bool = True, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.prototypes = Prototypes(in_channels, num_classes, normalize_at_eval=normalize_at_eval)

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits of the known classes.

        Args:
            features: (..., D).

        Returns:
            (..., K), cosines in [-1, 1] when the prototypes are unit.
        """
        return self.prototypes(features)
