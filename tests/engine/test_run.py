from types import SimpleNamespace

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmkd_ext.engine.runner import progress, run_settings


def runner(loop_type=EpochBasedTrainLoop):
    loop = loop_type.__new__(loop_type)
    loop.dataloader = torch.utils.data.DataLoader(range(40), batch_size=10)
    hub = MessageHub.get_instance('run')
    hub.update_info('last_ckpt', 'work/epoch_2.pth')
    fields = {
        'iter': 6,
        'seed': 3,
        'work_dir': 'work',
        'experiment_name': 'run_0',
        'cfg': Config({}),
        'message_hub': hub,
    }
    return SimpleNamespace(train_loop=loop, _load_from='best.pth', **fields)


def test_progress_counts_epochs_where_there_are_any():
    assert progress(runner()) == (1.5, 'epoch')
    assert progress(runner(IterBasedTrainLoop)) == (6.0, 'iteration')


def test_settings_of_a_training_and_of_a_test():
    training, test = (run_settings(runner(), is_training=is_training) for is_training in (True, False))
    assert (training['checkpoint'], training['iteration']) == ('work/epoch_2.pth', 6)
    assert (test['checkpoint'], test['iteration']) == ('best.pth', 0)
    assert (training['seed'], training['config']) == (3, 'run_0')


def test_config_is_named_after_its_file(tmp_path):
    (tmp_path / 'uno_digits.py').write_text('a = 1')
    with_file = runner()
    with_file.cfg = Config.fromfile(tmp_path / 'uno_digits.py')
    settings = run_settings(with_file, is_training=True)
    assert settings['config'] == 'uno_digits'
    assert settings['config file'] == str(tmp_path / 'uno_digits.py')
