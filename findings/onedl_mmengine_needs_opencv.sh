#!/usr/bin/env bash
# onedl-mmengine 0.10.12, torch 2.13.0.
#
# The wheel does not declare OpenCV, but its hooks, and with them its Runner, import cv2: installed without mmcv, which
# brings OpenCV, `import mmengine` works and `from mmengine.runner import Runner` does not.
#
# Output seen:
#   declared: False
#   ModuleNotFoundError: No module named 'cv2'
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.0' 'onedl-mmengine==0.10.12' 2> "$folder/pip.log" || { cat "$folder/pip.log" >&2; exit 1; }
"$folder/venv/bin/python" -W ignore - <<'PY' | tee "$folder/seen"
from importlib.metadata import requires

import mmengine

declared = [line for line in requires('onedl-mmengine') if 'opencv' in line and 'extra' not in line]
print('declared:', bool(declared))
try:
    from mmengine.runner import Runner
except ModuleNotFoundError as error:
    print(f'ModuleNotFoundError: {error}')
PY
grep -qx 'declared: False' "$folder/seen"
grep -qx "ModuleNotFoundError: No module named 'cv2'" "$folder/seen"
