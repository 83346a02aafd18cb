"""Takes a discovery elsewhere: the whole model as ONNX, the backbone as a checkpoint of mmpretrain.

Suffixes: B batch rows, D dims, C known and novel classes.
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.discover.inference import DiscoveryInferencer

__all__ = ['export_backbone', 'export_onnx']

_OPSET = 18


class _Deployed(nn.Module):
    """Pixels in, classes out: normalisation, backbone, and the head that predicts."""

    def __init__(self, inferencer: DiscoveryInferencer) -> None:
        super().__init__()
        self.network = inferencer.predictor.model
        novel_head = self.network.novel_head
        self.best_head = None if novel_head is None else int(novel_head.best_head)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        preprocessor = self.network.data_preprocessor
        image = image.flip(1) if preprocessor.to_rgb else image
        embedding_BD = self.network._features((image - preprocessor.mean) / preprocessor.std)
        cosine_BC = self.network.known_head(embedding_BD)
        if self.best_head is not None:
            cosine_BC = torch.cat([cosine_BC, self.network.novel_head(embedding_BD)[self.best_head]], dim=1)
        return (cosine_BC / self.network.temperature).softmax(dim=1), cosine_BC, embedding_BD


def export_onnx(inferencer: DiscoveryInferencer, path: str | Path) -> None:
    """Write the model as ONNX, with one file for graph and weights.

    The input ``image`` is (B, 3, crop, crop) float32, RGB, 0 to 255: the central square of an image, see
    :func:`mmkd_ext.pictures.read_square`, and where ``crop`` is below ``side`` the centre of that. Outputs
    are ``scores`` (B, C), ``cosine`` (B, C) and ``embedding`` (B, D). The metadata ``discovery`` of the file is JSON
    with ``classes``, ``num_known``, ``side`` and ``crop``.

    Args:
        inferencer: The model, on the CPU.
        path: File to write.

    Raises:
        ModuleNotFoundError: The packages onnx and onnxscript are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch needs it)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'export_onnx: expected the packages onnx and onnxscript but {error.name} is not installed; '
            'run `pip install onnx onnxscript`',
            name=error.name,
        ) from error
    side, crop = inferencer.predictor.side, inferencer.predictor.crop
    example = torch.linspace(0, 255, 2 * 3 * crop * crop).view(2, 3, crop, crop)
    batch = torch.export.Dim('batch')
    program = torch.onnx.export(
        _Deployed(inferencer).eval(),
        (example,),
        dynamo=True,
        external_data=False,
        opset_version=_OPSET,
        input_names=['image'],
        output_names=['scores', 'cosine', 'embedding'],
        dynamic_shapes={'image': {0: batch}},
        verbose=False,
    )
    about = {'classes': inferencer.classes, 'num_known': inferencer.num_known, 'side': side, 'crop': crop}
    model = program.model_proto
    onnx.helper.set_model_props(model, {'discovery': json.dumps(about)})
    onnx.save(model, path)


def export_backbone(weights: str | Path, path: str | Path) -> int:
    """Write the weights of the backbone alone, under the names that mmpretrain's classifiers have.

    ``init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.')`` of a backbone reads them.

    Args:
        weights: Checkpoint of any stage of a discovery.
        path: File to write.

    Returns:
        Number of entries.

    Raises:
        ValueError: There are none.
    """
    found = load_checkpoint_safely(weights)['state_dict']
    kept = {name: value for name, value in found.items() if name.startswith('backbone.')}
    if not kept:
        raise ValueError(f'export_backbone: expected entries backbone.* in {weights} but got {sorted(found)[:5]}')
    torch.save({'state_dict': kept, 'meta': {}}, path)
    return len(kept)
