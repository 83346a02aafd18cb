"""Folders of odd images, and a discovery in them that was trained for two epochs."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

MODES = ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'I', 'F', 'I;16']
SUFFIX = {'CMYK': '.jpg', 'F': '.tif', 'I': '.tif', '1': '.bmp'}
NAMES = ['plain', 'with space', 'quo\'te"', '<img src=x onerror=alert(1)>', 'ünï 文', '=1+1', '{{ x }}', 'new 1']


def write_image(path: Path, mode: str, kind: int, generator: np.random.Generator) -> None:
    """Noise around the brightness of a kind, of any mode and size."""
    height, width = generator.integers(10, 20, 2)
    grey = (generator.integers(0, 60, (height, width)) + 60 * kind).clip(0, 255)
    if mode in ('I', 'F', 'I;16'):
        image = Image.fromarray((grey * 200).astype({'I': np.int32, 'F': np.float32, 'I;16': np.uint16}[mode]))
    else:
        image = Image.fromarray(grey.astype(np.uint8)).convert('RGB').convert(mode)
    exif = Image.Exif()
    exif[0x0112] = int(generator.integers(1, 9))
    image.save(path, **({'exif': exif} if mode in ('L', 'RGB', 'RGBA', 'CMYK') else {}))


@pytest.fixture(scope='session')
def photos(tmp_path_factory) -> Path:
    """Two known kinds and three others, 60 images of all modes with odd names, and 5 broken files."""
    root, generator = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
    for index in range(60):
        kind, mode = index % 4, MODES[index % len(MODES)]
        folder = root / 'known' / NAMES[5 + kind] if kind < 2 else root / 'other' / NAMES[index % 5]
        folder.mkdir(parents=True, exist_ok=True)
        name = f'{NAMES[index % len(NAMES)]} {index}{SUFFIX.get(mode, ".png")}'
        write_image(folder / name, mode, kind, generator)
    good = next((root / 'known' / NAMES[5]).iterdir()).read_bytes()
    for name, content in {'empty.png': b'', 'text.jpg': b'no image', 'cut.png': good[: len(good) // 2]}.items():
        (root / 'other' / name).write_bytes(content)
    (root / 'known' / NAMES[5] / 'cut.tif').write_bytes(b'II*\0' + bytes(9))
    (root / 'other' / os.fsdecode(b'broken \xff.gif')).write_bytes(b'GIF89a')
    os.rename(next((root / 'other' / NAMES[0]).glob('*.png')), root / 'other' / os.fsdecode(b'bytes \xff.png'))
    return root


@pytest.fixture(scope='session')
def discovered(photos, tmp_path_factory) -> Path:
    """What the whole command leaves, in which nothing may be changed."""
    from mmkd_ext.checkpoint import register_safe_loader
    from mmkd_ext.discover import Options, Steps

    register_safe_loader()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp('out') / 'dis {co} vered'
    Steps(Options(str(photos / 'known'), str(photos / 'other'), epochs=2), out, say=lambda _: None).run()
    return out
