"""Small data sets of noise in the official layouts on disk: what a config finds where the real data would lie."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import io

from mmkd_ext.datasets.omniglot import ALPHABETS, NUM_DRAWINGS, SIDE

RNG = np.random.default_rng(0)


def save_image(path, size=(64, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


# --- each writes a known and a novel class for training and for testing


def write_cifar10(root):
    root.mkdir(parents=True)
    for name in [f'data_batch_{number}' for number in range(1, 6)] + ['test_batch']:
        rows = RNG.integers(0, 256, (10, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(10)
        rows.tofile(root / f'{name}.bin')


def write_cifar100(root):
    root.mkdir(parents=True)
    for name in ('train', 'test'):
        rows = RNG.integers(0, 256, (100, 3074), dtype=np.uint8)
        rows[:, 0], rows[:, 1] = np.arange(100) // 5, np.arange(100)
        rows.tofile(root / f'{name}.bin')


def write_cub(root):
    rows = [(150, 1), (20, 1), (150, 0), (20, 0), (70, 1), (1, 1)]  # class, is training image; 20 and 1 are novel
    for number, (label, _) in enumerate(rows):
        save_image(root / 'images' / f'{label + 1:03d}.Bird' / f'{number}.jpg')
    lines = {
        'images': [f'{label + 1:03d}.Bird/{number}.jpg' for number, (label, _) in enumerate(rows)],
        'image_class_labels': [label + 1 for label, _ in rows],
        'train_test_split': [training for _, training in rows],
    }
    for name, values in lines.items():
        (root / f'{name}.txt').write_text(''.join(f'{number + 1} {value}\n' for number, value in enumerate(values)))


def write_cars(root):
    # class, is test image; 23 and 3 are novel, 150 is to be retrieved
    rows = [(1, 0), (23, 0), (1, 1), (23, 1), (11, 0), (3, 0), (150, 1), (150, 1)]
    kinds = [('relative_im_path', 'O'), ('class', 'O'), ('test', 'O')]
    annotations = np.zeros((1, len(rows)), dtype=kinds)
    for number, (label, testing) in enumerate(rows):
        path = f'car_ims/{number:06d}.jpg'
        save_image(root / path)
        annotations[0, number] = path, label + 1, testing
    io.savemat(root / 'cars_annos.mat', {'annotations': annotations})


def write_aircraft(root):
    from mmpretrain.datasets.categories import FGVCAIRCRAFT_CATEGORIES as NAMES

    rows = {'trainval': [0, 6, 1, 7], 'test': [0, 6]}  # 6 and 7 are novel
    for split, labels in rows.items():
        for number, _ in enumerate(labels):
            save_image(root / 'data' / 'images' / f'{split}{number}.jpg')
        lines = [f'{split}{number} {NAMES[label]}\n' for number, label in enumerate(labels)]
        (root / 'data' / f'images_variant_{split}.txt').write_text(''.join(lines))


def write_imagenet(root):
    for split, count in {'train': 4, 'val': 2}.items():
        names = [f'n{number:08d}/{number}.JPEG' for number in range(count)]
        for name in names:
            save_image(root / split / name)
        (root / 'meta').mkdir(exist_ok=True)
        (root / 'meta' / f'{split}.txt').write_text(''.join(f'{name} {i}\n' for i, name in enumerate(names)))


def write_omniglot(root):
    """As many characters as tests put into ``ALPHABETS``."""
    root.mkdir(parents=True)
    for part, alphabets in ALPHABETS.items():
        images = RNG.random((sum(alphabets.values()), NUM_DRAWINGS, SIDE, SIDE)) < 0.9
        np.savez(root / f'images_{part}.npz', images=images)


def write_online_products(root):
    for split, first in {'train': 0, 'test': 2}.items():  # two products of two photos each
        rows = [(first + label, f'bicycle_final/{split}{label}_{number}.JPG') for label in (0, 1) for number in (0, 1)]
        for _, path in rows:
            save_image(root / path)
        lines = [f'{number} {label + 1} 1 {path}\n' for number, (label, path) in enumerate(rows, start=1)]
        (root / f'Ebay_{split}.txt').write_text('image_id class_id super_class_id path\n' + ''.join(lines))


def write_mini_imagenet(root):
    for split, (num_classes, num_images) in {'train': (64, 2), 'val': (16, 20), 'test': (20, 20)}.items():
        rows = [(f'{split}{k}_{i}.jpg', f'n{k:08d}') for k in range(num_classes) for i in range(num_images)]
        for name, _ in rows:
            save_image(root / 'images' / name, size=(8, 8))
        (root / f'{split}.csv').write_text('filename,label\n' + ''.join(f'{file},{name}\n' for file, name in rows))


WRITERS: dict[str, Callable[[Path], None]] = {
    'cifar10': write_cifar10,
    'cifar100': write_cifar100,
    'CUB_200_2011': write_cub,
    'stanford_cars': write_cars,
    'fgvc-aircraft-2013b': write_aircraft,
    'imagenet': write_imagenet,
    'Stanford_Online_Products': write_online_products,
    'omniglot': write_omniglot,
    'mini_imagenet': write_mini_imagenet,
}
