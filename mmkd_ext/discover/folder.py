"""The folder that a discovery fills: what is written where, whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd_ext.datasets.folder_images import FolderImages
from mmkd_ext.discover.recipe import Recipe
from mmkd_ext.io import write_text

__all__ = ['OutFolder', 'novel_class_names']


@dataclass(frozen=True)
class OutFolder:
    """Paths in the folder, and their reading and writing. A file that is there is complete.

    Attributes:
        root: The folder, absolute.
    """

    root: Path

    @property
    def images(self) -> Path:
        """What was found, read by :class:`mmkd_ext.datasets.ListedImages`."""
        return self.root / 'images.json'

    def claim(self, options: Mapping[str, Any], resume: bool) -> None:
        """Make the folder if need be, and note whose it is.

        Args:
            options: What a user asks for.
            resume: Whether a discovery with the same options may be there.

        Raises:
            FileExistsError: There is a discovery in the folder already, and ``resume`` is off.
            ValueError: It is one with other options.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        earlier = self.read_json('options')
        if earlier is not None and not resume:
            raise FileExistsError(
                f'discover: expected an empty folder but {self.root} has a discovery; add --resume to go on with it, '
                'or choose another by --out'
            )
        if earlier is not None and earlier != options:
            changed = [name for name, value in options.items() if earlier.get(name) != value]
            raise ValueError(
                f'discover: expected the options of the discovery in {self.root} but {changed} differ; repeat the '
                'command with --resume added, or choose another folder by --out'
            )
        self.write_json('options', options)

    def config(self, stage: str) -> Path:
        """Config of a stage."""
        return self.root / 'configs' / f'{stage}.py'

    def work_dir(self, stage: str) -> Path:
        """Logs and checkpoints of a stage."""
        return self.root / stage

    def checkpoint(self, stage: str) -> Path:
        """Last checkpoint of a stage that has its config."""
        return self.work_dir(stage) / f'epoch_{Config.fromfile(self.config(stage)).train_cfg.max_epochs}.pth'

    def write_json(self, name: str, content: Any) -> None:
        """Write ``<name>.json``. Names that are no Unicode come back as they were: json escapes them."""
        write_text(self.root / f'{name}.json', json.dumps(content, indent=1))

    def read_json(self, name: str) -> Any | None:
        """Read ``<name>.json``; ``None`` if there is none."""
        path = self.root / f'{name}.json'
        return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else None

    def write_images(self, images: FolderImages) -> None:
        """Write the list of images, with the folder from where its paths are seen."""
        self.write_json('images', {'folder': str(Path.cwd()), **asdict(images)})

    def read_images(self) -> FolderImages | None:
        """Read the list of images; ``None`` if there is none."""
        content = self.read_json('images')
        if content is None:
            return None
        content.pop('folder')
        return FolderImages(**{**content, 'broken': [tuple(entry) for entry in content['broken']]})

    def read_recipe(self) -> Recipe | None:
        """Read the recipe; ``None`` if there is none."""
        content = self.read_json('recipe')
        return None if content is None else Recipe(**content)

    def write_config(self, stage: str, settings: dict[str, Any]) -> None:
        """Write the config of a stage, unless there is one: a person may have changed it."""
        path = self.config(stage)
        if path.is_file():
            return
        path.parent.mkdir(exist_ok=True)
        write_text(path, Config(settings).pretty_text)


def novel_class_names(known_names: list[str], num_novel: int) -> list[str]:
    """Return 'new 1', 'new 2', ..., with one more 'new' in front as long as a known class has such a name."""
    prefix = 'new'
    while True:
        names = [f'{prefix} {number + 1}' for number in range(num_novel)]
        if not set(names) & set(known_names):
            return names
        prefix = f'new {prefix}'
