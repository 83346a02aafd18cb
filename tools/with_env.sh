#!/usr/bin/env bash
# Run a command in the project's own virtual environment; make and fill the environment first where needed.
#   bash tools/with_env.sh python tools/train.py CONFIG ...
# MMKD_STACK: which OpenMMLab packages, `onedl` (default) or `openmmlab`. MMKD_VENV: where the environment lies.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
stack="${MMKD_STACK:-onedl}"
case "$stack" in
  onedl) extras="onedl,seg,onnx,tests,docs" name=".venv" ;;
  openmmlab) extras="openmmlab,tests" name=".venv-openmmlab" ;;
  *) echo "with_env.sh: expected MMKD_STACK 'onedl' or 'openmmlab' but got '$stack'" >&2 && exit 2 ;;
esac
venv="${MMKD_VENV:-$root/$name}"
stamp="$venv/installed-from"

find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "with_env.sh: expected Python 3.10 or newer on the PATH but found none; install it first" >&2
  exit 1
}

# The stamp is written last: an installation that was cut off is repeated.
if ! cmp -s "$root/setup.py" "$stamp"; then
  echo "with_env.sh: setting up $venv with the $stack stack (once; about 5 GB, a few minutes)" >&2
  python="$(find_python)"
  "$python" -m venv "$venv" || {
    echo "with_env.sh: '$python -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
  }
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root[$extras]" >&2
  cp "$root/setup.py" "$stamp"
fi

export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv"
exec "$@"
