"""What was discovered in folders of images, ready for a reader: the input of the HTML report.

Shape suffixes: K known classes, N discovered classes.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmkd_ext.pictures import ValueRange

Picture = str | Path | np.ndarray
"""An image file, or pixels as uint8, grey (height, width) or RGB (height, width, 3)."""


@dataclass(frozen=True)
class SummaryNumber:
    """One number of the summary.

    Attributes:
        value: The number as it is shown, with its unit.
        name: What it counts, a few words.
        meaning: One sentence for somebody who knows nothing about the method.
    """

    value: str
    name: str
    meaning: str


@dataclass(frozen=True)
class ClassCount:
    """How the number of discovered classes was estimated.

    Attributes:
        candidates: Numbers of discovered classes that were tried, ascending.
        scores: Score of each, higher is better.
        errors: Uncertainty of each score, one standard error, >= 0.
        chosen: The number that was taken.
        score_name: What the score is.
    """

    candidates: Sequence[int]
    scores: Sequence[float]
    errors: Sequence[float]
    chosen: int
    score_name: str

    def __post_init__(self) -> None:
        lengths = [len(self.candidates), len(self.scores), len(self.errors)]
        if len(set(lengths)) > 1:
            raise ValueError(
                f'ClassCount: expected candidates, scores and errors of one length but got {lengths}; '
                'give one score and one error per candidate'
            )


@dataclass(frozen=True)
class DiscoveryResult:
    """Everything that the report of a discovery shows. Images are in any order, and keep it in the CSV.

    Attributes:
        title: Heading of the report.
        paths: Path of each image as the user knows it, any characters; files whose name is no Unicode hold what
            ``os.fsdecode`` made of it.
        pictures: Where the thumbnail of each image comes from. A file that cannot be read leaves an empty frame.
        known_names: Names of the K known classes.
        novel_names: Names of the N discovered classes, such as 'new 1'; no name may occur twice.
        labels: Class of each image, known first, ints in [0, K + N), (images,): predicted, or given if labelled.
        confidence: Confidence of each prediction, in [0, 1], (images,).
        distance: Distance of each image to the centre of its class, >= 0, unit of the method, (images,).
        is_labelled: Whether the class of each image was given, (images,). Labelled images are shown on the map only.
        points: Coordinates of each image on a map, without unit, (images, 2); ``None`` for a report without map.
        relation_NK: Similarity of each discovered class to each known one, higher is more alike, (N, K); a row of
            probabilities, or cosines. ``None`` to leave it out.
        curves: Name -> (epoch, value) of the course of training.
        class_count: How N was estimated; ``None`` if it was given.
        broken: (path, reason) of images that could not be read, and are no part of the others.
        ignored: (path, reason) of other files and folders that were found among them.
        notes: What was decided about odd folders and lists, one sentence each.
        value_range: What is black and white in pictures of more than 8 bits; each for itself by default.
        summary: Numbers of the method, beside those that the report counts itself.
        settings: What was run, shown as a table.
    """

    title: str
    paths: Sequence[str]
    pictures: Sequence[Picture]
    known_names: Sequence[str]
    novel_names: Sequence[str]
    labels: np.ndarray
    confidence: np.ndarray
    distance: np.ndarray
    is_labelled: np.ndarray
    points: np.ndarray | None = None
    relation_NK: np.ndarray | None = None
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    class_count: ClassCount | None = None
    broken: Sequence[tuple[str, str]] = ()
    ignored: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    value_range: ValueRange | None = None
    summary: Sequence[SummaryNumber] = ()
    settings: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_values()

    @property
    def class_names(self) -> list[str]:
        """Names of all classes, known first."""
        return [*self.known_names, *self.novel_names]

    def _check_shapes(self) -> None:
        num_images, num_known, num_novel = len(self.paths), len(self.known_names), len(self.novel_names)
        expected = {
            'pictures': (num_images,),
            'labels': (num_images,),
            'confidence': (num_images,),
            'distance': (num_images,),
            'is_labelled': (num_images,),
            'points': (num_images, 2),
            'relation_NK': (num_novel, num_known),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            # Pictures may be arrays of unequal shapes, which numpy cannot stack.
            found = (len(value),) if name == 'pictures' else np.shape(value)
            if value is not None and found != shape:
                raise ValueError(
                    f'DiscoveryResult: expected {name} of shape {shape} but got {found}; there are {num_images} '
                    f'images, {num_known} known and {num_novel} discovered classes'
                )

    def _check_values(self) -> None:
        names = self.class_names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f'DiscoveryResult: expected different names of classes but got {twice} more than once; rename them'
            )
        labels, confidence = np.asarray(self.labels), np.asarray(self.confidence)
        wrong = labels[(labels < 0) | (labels >= len(names))]
        if len(wrong):
            raise ValueError(
                f'DiscoveryResult: expected labels in [0, {len(names)}) but got {wrong[0]}; known classes come first, '
                'then discovered ones'
            )
        wrong = confidence[~((confidence >= 0) & (confidence <= 1))]
        if len(wrong):
            raise ValueError(
                f'DiscoveryResult: expected confidence in [0, 1] but got {wrong[0]}; give the probability of the class'
            )
        for name in ('distance', 'points', 'relation_NK'):
            value = getattr(self, name)
            if value is not None and not np.isfinite(np.asarray(value, dtype=np.float64)).all():
                raise ValueError(f'DiscoveryResult: expected finite {name} but got NaN or infinity; check the features')


# --------------------------------------------------------------------------------------------------
# The table of a discovery: one line per image without label. The page in the browser writes the same bytes.

_FORMULA_STARTS = ('=', '+', '-', '@', '\t', '\r')
"""A cell that begins so is computed by spreadsheets (OWASP, CSV injection), quoted or not."""


def number_texts(result: DiscoveryResult) -> tuple[list[str], list[str]]:
    """Format the numbers of all images.

    Args:
        result: What was discovered.

    Returns:
        tuple: Confidence with 4 decimals, and distance with 6 digits.
    """
    confidence, distance = np.asarray(result.confidence).tolist(), np.asarray(result.distance).tolist()
    return [f'{value:.4f}' for value in confidence], [f'{value:.6g}' for value in distance]


def write_assignments_csv(result: DiscoveryResult, path: Path) -> None:
    """Write the table as RFC 4180 wants it: every field quoted, lines end with CR LF, UTF-8.

    Names keep every character, line breaks and quotes included; a file name that is no Unicode keeps its bytes. A
    relative path that a spreadsheet would take for a formula gets './' in front: the same file, and no formula.

    Args:
        result: What was discovered.
        path: CSV file to write.
    """
    names, labels = result.class_names, np.asarray(result.labels).tolist()
    confidence, distance = number_texts(result)
    with path.open('w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator='\r\n')
        writer.writerow(('path', 'cluster', 'confidence', 'distance'))
        for image in np.flatnonzero(~np.asarray(result.is_labelled, dtype=bool)).tolist():
            name = result.paths[image]
            name = f'./{name}' if name.startswith(_FORMULA_STARTS) else name
            writer.writerow((name, names[labels[image]], confidence[image], distance[image]))
