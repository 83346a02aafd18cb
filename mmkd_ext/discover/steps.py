"""The steps of a discovery: look at the images, choose a recipe, find the number of novel classes, train, report.

Each step leaves files that are complete when they are there, and is skipped where they are. The first one, with all
checks, leaves nothing before it has succeeded.

Suffixes: N images, D dims.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mmengine.runner
import numpy as np
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import find_latest_checkpoint

from mmkd_ext.clustering.kmeans import semi_supervised_kmeans
from mmkd_ext.clustering.num_classes import NumClasses, estimate_num_classes
from mmkd_ext.datasets.folder_images import FolderImages, scan, tally
from mmkd_ext.discover.inference import Predictor, discovery_result, novel_class_names, read_curves
from mmkd_ext.discover.recipe import (
    Options,
    OutFolder,
    Recipe,
    choose_recipe,
    given_number,
)
from mmkd_ext.discover.stage_configs import (
    discovery_config,
    forecast,
    free_bytes,
    representation_config,
    stage_one_config,
)
from mmkd_ext.io import replacing
from mmkd_ext.models.build import read_config
from mmkd_ext.ops.arguments import unit_features
from mmkd_ext.visualization import ClassCount, DiscoveryResult, write_assignments_csv, write_html_report

__all__ = ['Options', 'Stages', 'Steps', 'Trial', 'best_trial', 'judge', 'search_number']

# --------------------------------------------------------------------------------------------------
# The stages that are trained, each by its config file and in its own work dir.


_EVERY = 20.0
"""Seconds between two lines about a training."""


class Runner(mmengine.runner.Runner):
    """The stock Runner, whose log file has everything and whose console the progress and what is wrong."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger of mmengine, and take most lines from the console."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(_Progress())
        return logger


class _Progress:
    """Lets through warnings, but for what mmengine says about itself, and a line about the training now and then."""

    def __init__(self) -> None:
        self.said = time.monotonic()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            return not message.startswith(('"FileClient"', '"HardDiskBackend"'))
        if message.startswith('Epoch(train)') and time.monotonic() - self.said > _EVERY:
            self.said = time.monotonic()
            return True
        return False


class Stages:
    """Stages in the folder of a discovery.

    Args:
        folder: The folder.
        say: Called with one line when a training begins.
        prepare: Called with the config of a stage before its Runner is built.
    """

    def __init__(self, folder: OutFolder, say: Callable[[str], None], prepare: Callable[[Config], None]) -> None:
        self.folder = folder
        self.say = say
        self.prepare = prepare

    def train(self, stage: str, settings: dict[str, Any], headline: str) -> None:
        """Train a stage, from where it was interrupted; nothing if it is finished.

        Args:
            stage: Its name.
            settings: Its config, unless it has a config file already.
            headline: What is said.
        """
        self.folder.write_config(stage, settings)
        cfg = self._config(stage)
        if self.folder.checkpoint(stage).is_file():
            return
        self.say(headline)
        latest = find_latest_checkpoint(cfg.work_dir) if self.folder.work_dir(stage).is_dir() else None
        if latest is not None:
            cfg.resume, cfg.load_from = True, latest
        self.prepare(cfg)
        Runner.from_cfg(cfg).train()

    def take_over(self, trained: str, stage: str, settings: dict[str, Any]) -> None:
        """Make a trained stage another one, if there is such a one; afterwards there is not.

        Args:
            trained: Its name.
            stage: Name that it gets.
            settings: Config of the stage, unless it has a config file already.
        """
        work_dir = self.folder.work_dir(trained)
        if not work_dir.is_dir():
            return
        self.folder.write_config(stage, settings)
        (work_dir / 'last_checkpoint').write_text(str(self.folder.checkpoint(stage)), encoding='utf-8')
        work_dir.rename(self.folder.work_dir(stage))

    def predictor(self, stage: str) -> Predictor:
        """Return what runs the model of a finished stage."""
        return Predictor(self._config(stage), self.folder.checkpoint(stage))

    def _config(self, stage: str) -> Config:
        cfg = Config.fromfile(self.folder.config(stage))
        cfg.work_dir = str(self.folder.work_dir(stage))
        return cfg


# --------------------------------------------------------------------------------------------------
# The number of novel classes, by discovering with several numbers and comparing how clear the classes come out.

_MAX_SAMPLES = 5000
"""A silhouette takes the distances of all pairs."""


@dataclass(frozen=True)
class Trial:
    """A discovery with one number of novel classes.

    Attributes:
        num_novel: The number.
        silhouette: Mean silhouette of all images in the classes that they have or were given by the model, in [-1, 1].
        silhouette_se: Its standard error over images.
    """

    num_novel: int
    silhouette: float
    silhouette_se: float


def search_number(
    first: int, discover: Callable[[int], Trial], smallest: int = 1, largest: int | None = None
) -> list[Trial]:
    """Try a number and both its neighbours, and go on from the best until it lies between worse ones.

    Neighbours are one apart, or a tenth of ``first`` from 15 classes on.

    Args:
        first: Where to begin.
        discover: Makes a trial of a number.
        smallest: The smallest number tried, 1, or 0 where it may be that nothing is new.
        largest: The largest number tried; a best number of this size is a lower bound.

    Returns:
        All trials, in the order of their numbers.
    """
    step = max(1, round(first / 10))
    tried: dict[int, Trial] = {}
    place = first
    while True:
        for num_novel in (place, place - step, place + step):
            if smallest <= num_novel <= (largest or num_novel) and num_novel not in tried:
                tried[num_novel] = discover(num_novel)
        trials = [tried[num_novel] for num_novel in sorted(tried)]
        best = best_trial(trials).num_novel
        if best == place:
            return trials
        place = best


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial of the highest silhouette, the smallest number of equals.

    That nothing is new holds until it is beaten by more than the standard error of the difference.
    """
    best = max(trials, key=lambda trial: trial.silhouette)
    nothing = next((trial for trial in trials if trial.num_novel == 0), best)
    is_clear = best.silhouette - nothing.silhouette > math.hypot(best.silhouette_se, nothing.silhouette_se)
    return best if is_clear else nothing


def judge(num_novel: int, features_ND: np.ndarray, labels_N: np.ndarray) -> Trial:
    """Measure how much nearer images are to their own class than to the next.

    With too few novel classes some hold images that lie apart, with too many some lie among each other: both lower it.
    The features must come from a network that was not trained with this number: one that was draws its own classes
    together, however few there are. Silhouettes by Rousseeuw, 1987.

    Args:
        num_novel: Number of novel classes of the discovery.
        features_ND: (N, D), compared at length 1; the same for all trials.
        labels_N: Class of each image, the given one, or the one that the model found; at least two classes.

    Returns:
        The trial. Of more than 5,000 images, a random part takes part.
    """
    from sklearn.metrics import silhouette_samples  # takes a second: only when there is something to search

    chosen = np.sort(np.random.default_rng(0).permutation(len(labels_N))[:_MAX_SAMPLES])
    values_N = silhouette_samples(unit_features(features_ND[chosen]), labels_N[chosen])
    return Trial(num_novel, float(values_N.mean()), float(values_N.std() / len(values_N) ** 0.5))


def _class_count(trials: Sequence[Trial]) -> ClassCount:
    return ClassCount(
        candidates=[trial.num_novel for trial in trials],
        scores=[trial.silhouette for trial in trials],
        errors=[trial.silhouette_se for trial in trials],
        chosen=best_trial(trials).num_novel,
        score_name='silhouette (how far apart the classes are)',
    )


# --------------------------------------------------------------------------------------------------
# The discovery.

_LONG = 30 * 60
_MUCH = 4.0
"""Seconds, and GiB of memory, from which on it is said what would make it less."""
_MIXED = 0.2
"""Share of unlabelled images near known classes above which some of them are taken to be of these."""


class Steps:
    """A discovery in a folder.

    Args:
        options: What is asked for.
        out: Folder of all results; made if need be.
        say: Called with one line about each step.
        prepare: Called with the config of a stage before its Runner is built.
        resume: Whether to go on with what is in the folder.

    Raises:
        FileExistsError: There is a discovery in the folder already, and ``resume`` is off.
        ValueError: It is one with other options, or an option is wrong (:meth:`Options.check`).
    """

    def __init__(
        self,
        options: Options,
        out: str | Path,
        *,
        say: Callable[[str], None] = print,
        prepare: Callable[[Config], None] = lambda _: None,
        resume: bool = False,
    ) -> None:
        self.options = options
        self.folder = OutFolder(Path(out).resolve())
        # Names of files may be no Unicode, and a line about them must be printed all the same.
        self.say = lambda line: say(line.encode('utf-8', 'backslashreplace').decode())
        self.stages = Stages(self.folder, self.say, prepare)
        self.folder.check(asdict(options), resume)
        options.check(self.folder.root)

    def run(self) -> DiscoveryResult:
        """Do all steps, in order, and return what was found."""
        self.start()
        num_novel, trials = self._choose_number()
        self._train_discovery(num_novel)
        return self._report(trials, num_novel)

    def start(self) -> None:
        """Look at the images and choose a recipe; from here on the folder has a discovery.

        Raises:
            KeyError, OSError, RuntimeError, ValueError: The images, or an option together with them, do not allow a
                discovery. The folder is as it was.
        """
        if 'images' not in vars(self):
            self._scan()

    def _scan(self) -> None:
        images, recipe = self.folder.read_images(), self.folder.read_recipe()
        if images is None or recipe is None:
            self.say(f'Reading all images of {self.options.labelled} and {self.options.unlabelled}')
            images = scan(self.options.labelled, self.options.unlabelled)
            self._check_number(images)
            options = self.options
            recipe = choose_recipe(images, options.backbone, options.checkpoint, options.epochs, options.batch_size)
            self._describe(images)
            self._warn_of_cost(images, recipe)
            self.folder.claim(asdict(self.options), images, recipe)
        self.images: FolderImages = images
        self.recipe = recipe
        num_labelled = sum(label >= 0 for label in images.labels)
        self.say(
            f'{len(images.paths)} images: {num_labelled} labelled of {len(images.classes)} classes, '
            f'{len(images.paths) - num_labelled} unlabelled; {len(images.broken)} broken files, '
            f'{len(images.ignored)} ignored'
        )
        self.say(
            f'{recipe.crop} x {recipe.crop} pixels, {recipe.backbone["type"]}'
            f'{" with weights" if recipe.is_pretrained else ""}, {recipe.epochs} epochs per stage'
        )

    def _check_number(self, images: FolderImages) -> None:
        given, num_unlabelled = self._given_number(), sum(label < 0 for label in images.labels)
        if given is not None and given > num_unlabelled:
            raise ValueError(
                f'{"--num-novel" if self.options.config is None else "--config"}: expected at most {num_unlabelled} '
                f'novel classes, the number of unlabelled images, but got {given}; give fewer, or more images'
            )

    def _describe(self, images: FolderImages) -> None:
        """Say what is odd about the images."""
        for note in images.notes:
            self.say(f'Note: {note}')
        for name, entries in (('Broken', images.broken), ('Ignored', images.ignored)):
            if entries:
                self.say(f'{name}: {tally(entries)}')

    def _warn_of_cost(self, images: FolderImages, recipe: Recipe) -> None:
        """Say what memory and time will be needed, and what would make it less where it is much."""
        looks = self.options.assign_to == 'auto' or self._given_number() is None
        cost = forecast(recipe, images, finds_number=self._given_number() is None, looks=looks)
        gib, free = cost.num_bytes / 2**30, free_bytes() / 2**30
        line = f'This will take about {_duration(cost.seconds)} and {gib:.1f} GiB of memory'
        advice = []
        if cost.seconds > _LONG:
            if self._given_number() is None:
                advice.append('--num-novel N trains one discovery in place of three or more')
            advice.append('--epochs N with a smaller N, a smaller --backbone, fewer images, or a GPU take less time')
        if gib > _MUCH or gib > free:
            line += f', of which {free:.1f} are free' if gib > free else ''
            advice.append('--batch-size N with a smaller N takes less memory, nearly in proportion')
        self.say(f'{line}{"." if advice else ""}{"".join(f" {text}." for text in advice)}')

    def _given_number(self) -> int | None:
        """The number of novel classes that the user wants; None if it is to be found."""
        return self.options.num_novel if self.options.config is None else given_number(self.options.config)

    def _choose_number(self) -> tuple[int, list[Trial] | None]:
        """The number of novel classes, and how it was found; None if it was given."""
        given = self._given_number()
        if given is not None:
            return given, None
        trials = self._try_numbers()
        return best_trial(trials).num_novel, trials

    def _try_numbers(self) -> list[Trial]:
        """Discoveries with the estimated number and its neighbours, or their results from the folder."""
        finished = self.folder.read_json('num_novel')
        if finished is not None:
            return [Trial(**trial) for trial in finished]
        smallest = 1 if self.options.assign_to == 'novel' else 0  # who says that all are new has an answer already
        largest = max(1, sum(label < 0 for label in self.images.labels) // 2)
        first = min(max(smallest, self._estimate().num_novel), largest)
        assign_to = self._assign_to(max(first, 1))
        self._train_known()
        trials = search_number(first, lambda num_novel: self._try(num_novel, assign_to), smallest, largest)
        self.folder.write_json('num_novel', [asdict(trial) for trial in trials])
        best = best_trial(trials).num_novel
        if not best:
            self.say('Nothing new was found: no number of novel classes comes out more clearly than none')
        elif best == largest:
            self.say(f'At least {best} novel classes: no more were tried, since that is one for two unlabelled images')
        else:
            self.say(f'{best} novel classes come out most clearly')
        return trials

    def _try(self, num_novel: int, assign_to: str) -> Trial:
        stage = _trial_stage(num_novel)
        settings = discovery_config(self.recipe, *self._common, num_novel, assign_to)
        settings['work_dir'] = str(self.folder.work_dir(stage))
        self.stages.train(stage, settings, _headline(num_novel))
        given = np.array(self.images.labels)
        found = self.stages.predictor(stage).classify(self._files).scores_NC.argmax(axis=1)
        trial = judge(num_novel, self._features, np.where(given >= 0, given, found))
        self.say(f'{num_novel} novel classes: silhouette {trial.silhouette:.3f} +- {trial.silhouette_se:.3f}')
        return trial

    def _estimate(self) -> NumClasses:
        """Estimate the number of classes from the features, or read it."""
        content = self.folder.read_json('num_classes')
        if content is not None:
            return NumClasses.from_dict(content)
        features = self._features
        self.say('Estimating the number of classes')
        estimate = estimate_num_classes(features, np.array(self.images.labels), seed=self.options.seed)
        self.folder.write_json('num_classes', estimate.to_dict())
        self.say(
            f'{"At least" if estimate.at_edge else "About"} {estimate.num_novel} novel classes; '
            f'{len(estimate.admissible)} numbers are about as likely'
        )
        return estimate

    @cached_property
    def _features(self) -> np.ndarray:
        """Features of all images from a network that was trained on all of them, (N, D)."""
        settings = representation_config(self.recipe, *self._common)
        self.stages.train('representation', settings, 'Learning how all images look')
        return self.stages.predictor('representation').embed(self._files)

    def _assign_to(self, num_novel: int) -> str:
        """Whether unlabelled images may be of known classes: yes if clustering puts enough of them there."""
        if self.options.assign_to != 'auto':
            return self.options.assign_to
        share = self.folder.read_json('known_share')
        if share is None:
            unit, labels = unit_features(self._features), np.array(self.images.labels)
            num_known = len(self.images.classes)
            ids = semi_supervised_kmeans(unit, labels, num_known + num_novel, seed=self.options.seed).ids_N
            share = float((ids[labels < 0] < num_known).mean())
            self.folder.write_json('known_share', share)
            self.say(
                f'{100 * share:.0f} % of the unlabelled images look like known classes: they are taken to be '
                f'{"of known and novel classes" if share > _MIXED else "of novel classes only"}'
            )
        return 'all' if share > _MIXED else 'novel'

    def _train_known(self) -> None:
        settings = stage_one_config(self.recipe, *self._common)
        self.stages.train('stage_one', settings, 'Learning the known classes (stage one)')

    def _train_discovery(self, num_novel: int) -> None:
        """Train Cr-KD, or take over the trial with this number."""
        self._train_known()
        if self.options.config is not None:
            settings = read_config(self.options.config)._cfg_dict.to_dict()
        else:
            settings = discovery_config(self.recipe, *self._common, num_novel, self._assign_to(num_novel))
        self.stages.take_over(_trial_stage(num_novel), 'discovery', settings)
        self.stages.train('discovery', settings, _headline(num_novel))

    def _report(self, trials: list[Trial] | None, num_novel: int) -> DiscoveryResult:
        self.say('Writing assignments.csv and report.html')
        names = novel_class_names(self.images.classes, num_novel)
        result = discovery_result(
            self.images,
            self.stages.predictor('discovery').classify(self._files),
            names,
            self._files,
            title=f'What is in "{Path(self.options.unlabelled).name}"?',
            curves=read_curves(self.folder.work_dir('discovery')),
            class_count=None if trials is None else _class_count(trials),
            settings=self._settings(),
        )
        with replacing(self.folder.root / 'assignments.csv') as partial:
            write_assignments_csv(result, partial)
        write_html_report(result, self.folder.root / 'report.html')
        return result

    @property
    def _common(self) -> tuple[Path, int, int]:
        return self.folder.root, len(self.images.classes), self.options.seed

    @cached_property
    def _files(self) -> list[str]:
        folder = self.folder.read_json('images')['folder']
        return [os.path.join(folder, path) for path in self.images.paths]

    def _settings(self) -> dict[str, Any]:
        chosen = {name: value for name, value in asdict(self.options).items() if value is not None}
        recipe, estimate = self.recipe, self.folder.read_json('num_classes')
        return {
            **chosen,
            **({'novel classes, estimated from features': estimate['num_novel']} if estimate else {}),
            'image size': f'{recipe.crop} x {recipe.crop}',
            'backbone': recipe.backbone['type'],
            'epochs per stage': recipe.epochs,
            'batch size': recipe.discovery_batch_size or recipe.batch_size,
            'map': 't-SNE of the features; beyond 3,000 images the others lie between their nearest neighbours',
        }


def _trial_stage(num_novel: int) -> str:
    return f'discovery_{num_novel}'


def _headline(num_novel: int) -> str:
    return f'Discovering {num_novel} novel classes (Cr-KD)' if num_novel else 'Taking all for known classes'


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f'{max(seconds, 1):.0f} seconds'
    return f'{seconds / 60:.0f} minutes' if seconds < 5400 else f'{seconds / 3600:.1f} hours'
