#!/usr/bin/env bash
# onedl-mmengine 0.10.12, torch 2.13.0.
#
# A TypeError that is raised anywhere below a hook reaches the user without its traceback: Runner.call_hook catches
# TypeError, to explain wrong signatures of hooks, and raises another one `from None`. What is left names the hook's object,
# not the file and line that failed. Other exceptions keep their traceback. A hook that runs user code (a model, a metric, a
# transform) should turn TypeErrors into something else.
#
# Output seen:
#   TypeError: frames name deep_inside: False
#   ValueError: frames name deep_inside: True
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.0' 'onedl-mmengine==0.10.12' opencv-python-headless==5.0.0.93 2> "$folder/pip.log" || { cat "$folder/pip.log" >&2; exit 1; }
cd "$folder"
"$folder/venv/bin/python" -W ignore - 2>&1 <<'PY' > "$folder/log" || { tail -20 "$folder/log"; exit 1; }
import traceback

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner


class Model(BaseModel):
    def forward(self, inputs, mode='tensor'):
        return {'loss': inputs.sum()}


def deep_inside(kind):
    raise kind('some mistake far below')


class Mistaken(Hook):
    def __init__(self, kind):
        self.kind = kind

    def before_run(self, runner):
        deep_inside(self.kind)


for kind in (TypeError, ValueError):
    runner = Runner(Model(), 'runs', test_dataloader={'dataset': [torch.zeros(1)], 'sampler': {'type': 'DefaultSampler'}},
                    test_cfg={}, test_evaluator=[], custom_hooks=[Mistaken(kind)], experiment_name=kind.__name__)
    try:
        runner.test()
    except kind as error:
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        print(f'{kind.__name__}: frames name deep_inside: {"deep_inside" in names}', flush=True)
PY
grep 'frames name' "$folder/log" | tee "$folder/seen"
grep -qx 'TypeError: frames name deep_inside: False' "$folder/seen"
grep -qx 'ValueError: frames name deep_inside: True' "$folder/seen"
