"""Omniglot: 1623 handwritten characters of 50 alphabets, 20 drawings of each; nothing is downloaded.

Source: Lake, Salakhutdinov and Tenenbaum, Human-level concept learning through probabilistic program induction,
Science 2015, https://github.com/brendenlake/omniglot.

Shape suffixes: C characters, R rotations, P = 20 drawings of each, S side of an image.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmkd_ext.datasets.array_dataset import ArrayDataset
from mmkd_ext.datasets.omniglot_files import ALPHABETS, NUM_DRAWINGS, Character, read_characters
from mmkd_ext.registry import DATASETS

__all__ = ['Omniglot']

SPLITS = ('train', 'val', 'trainval', 'test', 'background', 'evaluation')

# Vinyals' split: these alphabets, and the last characters of one; all others are for training.
VAL_ALPHABETS = ('Armenian', 'Bengali', 'Early_Aramaic', 'Hebrew', 'Mkhedruli_(Georgian)')
TEST_ALPHABETS = (
    'Kannada',
    'Keble',
    'Malayalam',
    'Manipuri',
    'Mongolian',
    'Old_Church_Slavonic_(Cyrillic)',
    'Oriya',
    'Sylheti',
    'Syriac_(Serto)',
    'Tengwar',
    'Tibetan',
    'ULOG',
)
DIVIDED_ALPHABET, FIRST_TEST_CHARACTER = 'Gurmukhi', 42


@DATASETS.register_module()
class Omniglot(ArrayDataset):
    """Drawings of characters as grey images; every character, or every rotation of one, is a class.

    A sample's ``img`` is (S, S) uint8, ink 255 on paper 0; PIL and ``PackInputs`` take it as it is, and the packed
    input is (1, S, S). Images are scaled down when they are read, all at once, in a few seconds.

    Classes are named as in the published split files, ``'Greek/character01/rot090'``, and without rotations
    ``'Greek/character01'``. Rotations are counter-clockwise.

    ===============  ==========  ===========================================================================
    ``split``        characters  source
    ===============  ==========  ===========================================================================
    ``train``        1028        Vinyals et al., Matching Networks, arXiv 1606.04080, in the form published
    ``val``          172         with Prototypical Networks, arXiv 1703.05175
    ``trainval``     1200        both
    ``test``         423         as above
    ``background``   964         the original split, by alphabets
    ``evaluation``   659         the original split, by alphabets
    ===============  ==========  ===========================================================================

    Args:
        data_root: Folder of ``images_background.npz`` and ``images_evaluation.npz``, or of the official folders
            ``images_background/`` and ``images_evaluation/`` with ``<alphabet>/character<nn>/<id>_<drawer>.png``.
        split: One of the table.
        rotations: Whether characters turned by 90, 180 and 270 degrees are classes of their own, as in few-shot
            learning; four times as many classes.
        image_size: S, side of the images in pixels; the originals have 105.
        **kwargs: Arguments of :class:`~mmkd_ext.datasets.array_dataset.ArrayDataset`.

    Raises:
        FileNotFoundError: If neither form is there, or it is not whole.
        ValueError: For another split or size, or images of another shape than the official ones.
    """

    def __init__(
        self, data_root: str, split: str, rotations: bool = False, image_size: int = 28, **kwargs: Any
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f'Omniglot: expected split in {SPLITS} but got {split!r}; choose one of these')
        if image_size < 1:
            raise ValueError(f'Omniglot: expected image_size >= 1 but got {image_size}; 28 is in common use')
        self.rotations, self.image_size = rotations, image_size
        self.characters = characters_of_split(split)
        names = [f'{alphabet}/character{number:02d}' for _, alphabet, number in self.characters]
        if rotations:
            names = [f'{name}/rot{degrees:03d}' for name in names for degrees in (0, 90, 180, 270)]
        kwargs['metainfo'] = {'classes': tuple(names), **kwargs.get('metainfo', {})}
        super().__init__(data_root=data_root, **kwargs)

    def load_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return images (N, S, S) uint8 and labels (N,), class by class."""
        drawings = read_characters(Path(self.data_root).expanduser(), self.characters)
        images_CPSS = np.stack([[_scaled(drawing, self.image_size) for drawing in drawn] for drawn in drawings])
        quarter_turns = range(4 if self.rotations else 1)
        images_CRPSS = np.stack([np.rot90(images_CPSS, turns, axes=(2, 3)) for turns in quarter_turns], axis=1)
        images = images_CRPSS.reshape(-1, self.image_size, self.image_size)
        return images, np.repeat(np.arange(len(images) // NUM_DRAWINGS), NUM_DRAWINGS)


def characters_of_split(split: str) -> list[Character]:
    """Return the characters of a split, sorted by part, alphabet and number."""
    everything = [
        (part, alphabet, number)
        for part, alphabets in ALPHABETS.items()
        for alphabet, count in sorted(alphabets.items())
        for number in range(1, count + 1)
    ]
    if split in ALPHABETS:
        return [character for character in everything if character[0] == split]
    wanted = ('train', 'val') if split == 'trainval' else (split,)
    return [character for character in everything if _vinyals_split(*character[1:]) in wanted]


def _vinyals_split(alphabet: str, number: int) -> str:
    if alphabet in TEST_ALPHABETS or (alphabet == DIVIDED_ALPHABET and number >= FIRST_TEST_CHARACTER):
        return 'test'
    return 'val' if alphabet in VAL_ALPHABETS else 'train'


def _scaled(drawing: np.ndarray, size: int) -> np.ndarray:
    ink = Image.fromarray(np.where(drawing, 0, 255).astype(np.uint8))
    return np.asarray(ink.resize((size, size), Image.Resampling.LANCZOS))
