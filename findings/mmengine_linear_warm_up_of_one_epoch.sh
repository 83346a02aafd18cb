#!/usr/bin/env bash
# onedl-mmengine 0.10.12 (the same code as mmengine 0.10.7's), torch 2.13.0.
#
# A warm-up of one epoch, LinearLR(start_factor=0.01, by_epoch=True, begin=0, end=1), never ends: the rate stays at 1 % of
# its value for the whole training, without a warning, also where other schedulers follow it. `end` is exclusive and the
# ramp has `end - begin - 1` steps, here none, so the factor that step 0 multiplied in is never undone.
# Seen where a config computes the length of its warm-up from the number of epochs.
#
# Output seen:
#   end=1: 0.0010 0.0010 0.0010 0.0010
#   end=2: 0.0010 0.1000 0.1000 0.1000
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.0' 'onedl-mmengine==0.10.12' 2> "$folder/pip.log" || { cat "$folder/pip.log" >&2; exit 1; }
"$folder/venv/bin/python" -W ignore - <<'PY' | tee "$folder/seen"
import torch
from mmengine.optim import LinearLR, OptimWrapper

for end in (1, 2):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = LinearLR(OptimWrapper(optimizer), start_factor=0.01, by_epoch=True, begin=0, end=end)
    rates = []
    for _ in range(4):
        rates.append(f"{optimizer.param_groups[0]['lr']:.4f}")
        optimizer.step()
        scheduler.step()
    print(f'end={end}:', *rates)
PY
grep -qx 'end=1: 0.0010 0.0010 0.0010 0.0010' "$folder/seen"
grep -qx 'end=2: 0.0010 0.1000 0.1000 0.1000' "$folder/seen"
