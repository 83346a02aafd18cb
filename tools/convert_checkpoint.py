"""Rename official weights for mmkd_ext's models.

    python tools/convert_checkpoint.py dino dino_vitbase16_pretrain.pth checkpoints/dino_vit-b16.pth
    python tools/convert_checkpoint.py crkd best_checkpoint.pth checkpoints/crkd.pth   # also UNO's

Only tensors are read: a checkpoint that holds other objects is refused, and the message names them.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.models.convert import convert_dino_vit, convert_official_crkd

ENTRIES = ('state_dict', 'model_state_dict', 'model', 'teacher')


def find_weights(checkpoint: Mapping) -> Mapping[str, Tensor]:
    """Return the state dict of a checkpoint, whatever entry its author put it under."""
    for entry in ENTRIES:
        if isinstance(checkpoint.get(entry), Mapping):
            return checkpoint[entry]
    return checkpoint


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('kind', choices=['dino', 'crkd'], help='who wrote the weights')
    parser.add_argument('source', help='official checkpoint')
    parser.add_argument('target', help='file to write')
    args = parser.parse_args()
    weights = find_weights(load_checkpoint_safely(args.source))
    if args.kind == 'dino':
        converted = {f'backbone.{name}': value for name, value in convert_dino_vit(weights).items()}
    else:
        converted = convert_official_crkd(weights)
    Path(args.target).parent.mkdir(parents=True, exist_ok=True)
    torch.save({'state_dict': converted}, args.target)
    print(f'{args.target}: {len(converted)} tensors')


if __name__ == '__main__':
    main()
