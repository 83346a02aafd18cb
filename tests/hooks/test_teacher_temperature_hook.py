from types import SimpleNamespace

import pytest
from torch import nn

from mmkd_ext.hooks import TeacherTemperatureHook


def runner(epoch=0, **attributes):
    model = nn.Identity()
    for name, value in attributes.items():
        setattr(model, name, value)
    return SimpleNamespace(model=model, epoch=epoch)


def temperature(epoch, **settings):
    run = runner(epoch, teacher_temperature=0.04)
    TeacherTemperatureHook(**settings).before_train_epoch(run)
    return run.model.teacher_temperature


def test_falls_linearly_and_stays():
    assert temperature(0) == pytest.approx(0.07)
    assert temperature(15) == pytest.approx(0.055)
    assert temperature(30) == temperature(500) == pytest.approx(0.04)
    assert temperature(1, start=0.1, end=0.2, num_epochs=4) == pytest.approx(0.125)


def test_errors():
    with pytest.raises(TypeError, match=r'TeacherTemperatureHook: .*teacher_temperature .*got Identity'):
        TeacherTemperatureHook().before_train(runner())
    TeacherTemperatureHook().before_train(runner(teacher_temperature=0.04))
    with pytest.raises(ValueError, match=r'TeacherTemperatureHook: .*num_epochs .*got 0'):
        TeacherTemperatureHook(num_epochs=0)
