"""Tell the classes of new images with the model of a discovery.

    python tools/infer.py what_is_in_photos photos/new --csv new.csv

Images are files, folders or CSV files with a column path. Broken files are listed and left out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmkd_ext.datasets.folder_images import find_images
from mmkd_ext.discover import DiscoveryInferencer
from mmkd_ext.visualization import DiscoveryResult, write_assignments_csv


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help='folder that tools/discover.py filled, or config of its last stage')
    parser.add_argument('images', nargs='+', help='files, folders, CSV files')
    parser.add_argument('--weights', help='checkpoint; default: that of the folder')
    parser.add_argument('--csv', default='predictions.csv', help='file of the results; default: predictions.csv')
    parser.add_argument('--device', help='cpu, cuda, ...; default: the accelerator, if there is one')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(arguments)
    inferencer = DiscoveryInferencer(args.model, args.weights, args.device)
    paths, broken = find_images(args.images)
    results = inferencer(paths)
    result = DiscoveryResult(
        title='',
        paths=paths,
        pictures=paths,
        known_names=inferencer.classes[: inferencer.num_known],
        novel_names=inferencer.classes[inferencer.num_known :],
        labels=np.array([entry['pred_label'] for entry in results], dtype=np.int64),
        confidence=np.array([entry['pred_score'] for entry in results]).clip(0, 1),
        distance=np.array([entry['distance'] for entry in results]),
        is_labelled=np.zeros(len(paths), dtype=bool),
    )
    write_assignments_csv(result, Path(args.csv))
    for path, reason in broken:
        print(f'broken: {path!r}: {reason}')
    print(f'{len(paths)} images in {args.csv}, {len(broken)} broken files')


if __name__ == '__main__':
    main()
