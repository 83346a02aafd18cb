"""Estimate the number of classes from the features of a trained model.

    python tools/estimate_num_classes.py configs/gcd/gcd_convnet_80e_digits.py \
        work_dirs/gcd_convnet_80e_digits/epoch_80.pth

Features of a network that learnt the labelled classes alone do not tell the others apart: use a representation that has
seen the unlabelled images, as those of configs/gcd. Prints a table; num_classes.json and num_classes.png go to --out.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.image import imsave
from mmengine.config import Config

from mmkd_ext.clustering.num_classes import estimate_num_classes
from mmkd_ext.visualization import num_classes_figure
from mmkd_ext.visualization.figures import style
from num_classes import FILE, print_point, training_features
from startup import prepare


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file: its model, its training images and their labels')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--tap', default='embedding', help='module whose output is the feature')
    parser.add_argument('--max-classes', type=int, help='largest number tried; default: 4 times the known ones + 20')
    parser.add_argument('--max-samples', type=int, default=5000, help='of more images, a random part is looked at')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', help='folder of the results; default: that of the checkpoint')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(arguments)
    prepare(Config.fromfile(args.config), 'none')
    features, labels = training_features(args.config, args.checkpoint, args.tap)
    found = estimate_num_classes(
        features,
        labels,
        max_classes=args.max_classes,
        max_samples=args.max_samples,
        seed=args.seed,
        progress=print_point,
    )
    out = Path(args.out or Path(args.checkpoint).parent)
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_text(json.dumps(found.to_dict(), indent=1))
    imsave(out / 'num_classes.png', style.to_array(num_classes_figure(found)), dpi=style.DPI)
    by_accuracy = 'no opinion (fewer than two known classes)' if found.by_accuracy is None else found.by_accuracy
    print(
        f'\n{found.estimate} classes: {found.num_known} known, {found.num_novel} novel\n'
        f'  labelled accuracy alone: {by_accuracy}; within two standard errors: {list(found.admissible)}\n'
        f'  silhouette alone: {found.by_silhouette}\n'
        f'  {out / FILE}, {out / "num_classes.png"}'
    )


if __name__ == '__main__':
    main()
