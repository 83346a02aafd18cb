"""Export the model of a discovery: as ONNX, and its backbone as a checkpoint of mmpretrain.

python tools/export.py what_is_in_photos --onnx photos.onnx --backbone backbone.pth
"""

import argparse
from collections.abc import Sequence

from mmkd_ext.discover import DiscoveryInferencer, export_backbone, export_onnx, find_model


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help='folder that tools/discover.py filled, or config of its last stage')
    parser.add_argument('--weights', help='checkpoint; default: that of the folder')
    parser.add_argument('--onnx', metavar='FILE', help='pixels to classes; needs the packages onnx and onnxscript')
    parser.add_argument('--backbone', metavar='FILE', help='weights of the backbone alone')
    args = parser.parse_args(arguments)
    if not (args.onnx or args.backbone):
        parser.error('expected --onnx FILE or --backbone FILE but got neither; say what to write')
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(arguments)
    if args.onnx:
        export_onnx(DiscoveryInferencer(args.model, args.weights, device='cpu'), args.onnx)
    if args.backbone:
        export_backbone(find_model(args.model, args.weights)[1], args.backbone)


if __name__ == '__main__':
    main()
