"""Omniglot: 1623 handwritten characters of 50 alphabets, 20 drawings of each; nothing is downloaded.

On disk it is two arrays, or the official folders ``images_background/<alphabet>/character01/0709_01.png``. Both give
the drawings of one character as (20, 105, 105) bool, True for paper and False for ink, in the order of the drawers.

Source: Lake, Salakhutdinov and Tenenbaum, Human-level concept learning through probabilistic program induction,
Science 2015, https://github.com/brendenlake/omniglot.

Shape suffixes: M characters of a part, C of a split, P = 20 drawings of each, Y rows and X columns, R rotations, S side
of a scaled image.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmkd_ext.datasets.array_dataset import ArrayDataset, damaged, not_in_folder
from mmkd_ext.ops.arguments import check_choice
from mmkd_ext.registry import DATASETS

Character = tuple[str, str, int]
"""Part (``'background'`` or ``'evaluation'``), alphabet, and number of the character in it, from 1."""

NUM_DRAWINGS, SIDE = 20, 105


def _numbers(words: str) -> dict[str, int]:
    return {name: int(number) for name, number in (word.split(':') for word in words.split())}


# Alphabets of each part with their numbers of characters, in the order of the arrays.
ALPHABETS = {
    'background': _numbers("""
        Arcadian:26 Armenian:41 Asomtavruli_(Georgian):40 Balinese:24 Bengali:46
        Blackfoot_(Canadian_Aboriginal_Syllabics):14 Braille:26 Cyrillic:33 Early_Aramaic:22 Syriac_(Estrangelo):23
        Anglo-Saxon_Futhorc:29 Futurama:26 Grantha:43 Greek:24 Gujarati:48 Hebrew:22 Japanese_(hiragana):52
        Inuktitut_(Canadian_Aboriginal_Syllabics):16 Malay_(Jawi_-_Arabic):40 Japanese_(katakana):47 Korean:40 Latin:26
        Alphabet_of_the_Magi:20 Mkhedruli_(Georgian):41 Burmese_(Myanmar):34 N_Ko:33
        Ojibwe_(Canadian_Aboriginal_Syllabics):14 Sanskrit:42 Tagalog:17 Tifinagh:55
    """),
    'evaluation': _numbers("""
        Angelic:20 Atemayar_Qelisayer:26 Atlantean:26 Aurek-Besh:26 Avesta:26 Ge_ez:26 Glagolitic:45 Gurmukhi:45
        Kannada:41 Keble:26 Malayalam:47 Manipuri:40 Mongolian:30 Old_Church_Slavonic_(Cyrillic):45 Oriya:46
        Syriac_(Serto):23 Sylheti:28 Tengwar:25 Tibetan:42 ULOG:26
    """),
}


def read_characters(root: Path, characters: Sequence[Character]) -> list[np.ndarray]:
    """Read the drawings of some characters.

    Args:
        root: Folder of ``images_background.npz`` and ``images_evaluation.npz``, or of the folders
            ``images_background/`` and ``images_evaluation/``; one part is enough where only that is asked for.
        characters: What to read.

    Returns:
        One array (20, 105, 105) bool per character, in the order asked for.

    Raises:
        FileNotFoundError: If neither form is there, or a character's folder or drawing is missing.
        ValueError: If an array or drawing has another shape.
    """
    parts = sorted({part for part, _, _ in characters})
    if all((root / f'images_{part}.npz').is_file() for part in parts):
        arrays = {part: _read_array(root / f'images_{part}.npz', part) for part in parts}
        rows = {part: _row_of_character(part) for part in parts}
        return [arrays[part][rows[part][alphabet, number]] for part, alphabet, number in characters]
    if all((root / f'images_{part}').is_dir() for part in parts):
        return [_read_folder(root / f'images_{p}' / a / f'character{n:02d}') for p, a, n in characters]
    expected = ' and '.join(f'images_{part}.npz or images_{part}/' for part in parts)
    archives = 'images_background.zip and images_evaluation.zip of https://github.com/brendenlake/omniglot'
    raise not_in_folder('Omniglot', root, expected, f'unpack {archives} there, or set data_root')


def _row_of_character(part: str) -> dict[tuple[str, int], int]:
    names = [(name, number) for name, count in ALPHABETS[part].items() for number in range(1, count + 1)]
    return {name: row for row, name in enumerate(names)}


def _read_array(path: Path, part: str) -> np.ndarray:
    with zipfile.ZipFile(path) as archive, archive.open('images.npy') as file:
        images_MPYX = np.lib.format.read_array(file, allow_pickle=False)
    expected = (sum(ALPHABETS[part].values()), NUM_DRAWINGS, SIDE, SIDE)
    if images_MPYX.shape != expected or images_MPYX.dtype != bool:
        raise ValueError(
            f'Omniglot: expected images of shape {expected} and type bool in {path} but got {images_MPYX.shape}, '
            f'{images_MPYX.dtype}; make the file from the official images again'
        )
    return images_MPYX


def _read_folder(folder: Path) -> np.ndarray:
    paths = sorted(folder.glob('*_[0-9][0-9].png'))
    if len(paths) != NUM_DRAWINGS:
        raise FileNotFoundError(
            f'Omniglot: expected {NUM_DRAWINGS} drawings <number>_01.png ... in {folder.absolute()} but got '
            f'{len(paths)}; unpack the official images again'
        )
    return np.stack([_read_drawing(path) for path in paths])


def _read_drawing(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        drawing_YX = np.asarray(image.convert('1'))
    if drawing_YX.shape != (SIDE, SIDE):
        raise damaged('Omniglot', f'{SIDE} x {SIDE} pixels in {path}', f'shape {drawing_YX.shape}')
    return drawing_YX


# --------------------------------------------------------------------------------------------------
# Splits and classes.

SPLITS = ('train', 'val', 'trainval', 'test', 'background', 'evaluation')

# Vinyals' split: these alphabets, and the last characters of one; all others are for training.
VAL_ALPHABETS = ('Armenian', 'Bengali', 'Early_Aramaic', 'Hebrew', 'Mkhedruli_(Georgian)')
TEST_ALPHABETS = tuple(
    """
    Kannada Keble Malayalam Manipuri Mongolian Old_Church_Slavonic_(Cyrillic) Oriya Sylheti Syriac_(Serto) Tengwar
    Tibetan ULOG
    """.split()  # noqa: SIM905 (easier to read without quotes)
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
        check_choice('Omniglot', SPLITS, split=split)
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
