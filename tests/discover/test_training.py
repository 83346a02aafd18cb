"""Stages are trained once, go on where they were, and can be taken over under another name."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmkd_ext.discover import OutFolder
from mmkd_ext.discover import steps as training

SETTINGS = {'train_cfg': {'max_epochs': 3}, 'work_dir': '/elsewhere'}


class FakeRunner:
    """Writes down what it would train, and leaves a checkpoint."""

    trained: list[Config]

    @classmethod
    def from_cfg(cls, cfg):
        cls.trained.append(cfg)
        return cls()

    def train(self):
        work_dir = Path(self.trained[-1].work_dir)
        work_dir.mkdir(exist_ok=True)
        (work_dir / 'epoch_3.pth').touch()
        (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_3.pth'))


@pytest.fixture
def stages(tmp_path, monkeypatch):
    FakeRunner.trained = []
    monkeypatch.setattr(training, 'Runner', FakeRunner)
    return training.Stages(OutFolder(tmp_path), lambda _: None, lambda cfg: cfg.update(prepared=True))


def test_a_stage_is_trained_once_in_its_own_folder(stages, tmp_path):
    stages.train('one', SETTINGS, 'go')
    stages.train('one', SETTINGS, 'go')
    assert [(cfg.work_dir, cfg.prepared, cfg.get('resume')) for cfg in FakeRunner.trained] == [
        (str(tmp_path / 'one'), True, None)
    ]


def test_an_interrupted_stage_goes_on(stages, tmp_path):
    (tmp_path / 'one').mkdir()
    (tmp_path / 'one' / 'last_checkpoint').write_text('/one/epoch_2.pth')
    stages.train('one', SETTINGS, 'go')
    assert (FakeRunner.trained[0].resume, FakeRunner.trained[0].load_from) == (True, '/one/epoch_2.pth')


def test_a_stage_is_taken_over_with_its_checkpoint(stages, tmp_path):
    stages.train('trial', SETTINGS, 'go')
    for _ in range(2):  # a second time there is nothing to do
        stages.take_over('trial', 'final', SETTINGS)
    stages.train('final', SETTINGS, 'go')
    assert len(FakeRunner.trained) == 1
    assert not (tmp_path / 'trial').exists()
    assert (tmp_path / 'final' / 'last_checkpoint').read_text() == str(tmp_path / 'final' / 'epoch_3.pth')
    assert stages.folder.checkpoint('final').is_file()
