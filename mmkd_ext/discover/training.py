"""Trains the stages of a discovery, each by its config file and in its own work dir."""

from collections.abc import Callable
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint

from mmkd_ext.discover.folder import OutFolder
from mmkd_ext.discover.predictor import Predictor

__all__ = ['Stages']


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
