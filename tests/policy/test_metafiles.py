"""``model-index.yml`` and the metafiles are those of the configs that there are, and claim no weights."""

import runpy
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
FOUND = runpy.run_path(str(ROOT / '.ci' / 'metafiles.py'))['metafiles']()


def test_they_are_written_anew_where_configs_change():
    stale = [path for path, text in FOUND.items() if not (ROOT / path).is_file() or (ROOT / path).read_text() != text]
    assert stale == [], 'run `python .ci/metafiles.py`'
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob('configs/*/metafile.yml')} == FOUND.keys() - {
        'model-index.yml'
    }


def test_every_config_is_listed_once_and_none_claims_weights():
    models = [
        model
        for path in yaml.safe_load(FOUND['model-index.yml'])['Import']
        for model in yaml.safe_load(FOUND[path])['Models']
    ]
    configs = [str(path.relative_to(ROOT)) for path in ROOT.glob('configs/[!_]*/*.py')]
    assert sorted(model['Config'] for model in models) == sorted(configs)
    assert len({model['Name'] for model in models}) == len(models), 'configs are found by their names alone'
    assert not any({'Weights', 'Results'} & model.keys() for model in models)
