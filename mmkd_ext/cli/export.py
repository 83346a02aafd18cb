"""``mmkd export`` and ``mmkd convert``: weights in the form that other programs read, and those of others in ours."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.cli import command
from mmkd_ext.discover import DiscoveryInferencer, export_backbone, export_onnx, find_model
from mmkd_ext.models.convert import convert_dino_vit, convert_official_crkd

_EXPORT = """Export the model of a discovery: as ONNX, and its backbone as a checkpoint of mmpretrain.

    mmkd export what_is_in_photos --onnx photos.onnx --backbone backbone.pth
"""


def parse_export(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = command('export', _EXPORT)
    parser.add_argument('model', help='folder that mmkd discover filled, or config of its last stage')
    parser.add_argument('--weights', help='checkpoint; default: that of the folder')
    parser.add_argument('--onnx', metavar='FILE', help='pixels to classes; needs the packages onnx and onnxscript')
    parser.add_argument('--backbone', metavar='FILE', help='weights of the backbone alone')
    args = parser.parse_args(arguments)
    if not (args.onnx or args.backbone):
        parser.error('expected --onnx FILE or --backbone FILE but got neither; say what to write')
    return args


def export(arguments: Sequence[str] | None = None) -> None:
    """Run ``mmkd export``."""
    args = parse_export(arguments)
    if args.onnx:
        export_onnx(DiscoveryInferencer(args.model, args.weights, device='cpu'), args.onnx)
    if args.backbone:
        export_backbone(find_model(args.model, args.weights)[1], args.backbone)


# --------------------------------------------------------------------------------------------------
# mmkd convert

_CONVERT = """Rename official weights for mmkd_ext's models.

    mmkd convert dino dino_vitbase16_pretrain.pth checkpoints/dino_vit-b16.pth
    mmkd convert crkd best_checkpoint.pth checkpoints/crkd.pth   # also UNO's

Only tensors are read: a checkpoint that holds other objects is refused, and the message names them.
"""

ENTRIES = ('state_dict', 'model_state_dict', 'model', 'teacher')


def find_weights(checkpoint: Mapping) -> Mapping[str, Tensor]:
    """Return the state dict of a checkpoint, whatever entry its author put it under."""
    for entry in ENTRIES:
        if isinstance(checkpoint.get(entry), Mapping):
            return checkpoint[entry]
    return checkpoint


def convert(arguments: Sequence[str] | None = None) -> None:
    """Run ``mmkd convert``."""
    parser = command('convert', _CONVERT)
    parser.add_argument('kind', choices=['dino', 'crkd'], help='who wrote the weights')
    parser.add_argument('source', help='official checkpoint')
    parser.add_argument('target', help='file to write')
    args = parser.parse_args(arguments)
    weights = find_weights(load_checkpoint_safely(args.source))
    if args.kind == 'dino':
        converted = {f'backbone.{name}': value for name, value in convert_dino_vit(weights).items()}
    else:
        converted = convert_official_crkd(weights)
    Path(args.target).parent.mkdir(parents=True, exist_ok=True)
    torch.save({'state_dict': converted}, args.target)
    print(f'{args.target}: {len(converted)} tensors')
