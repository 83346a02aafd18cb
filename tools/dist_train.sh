#!/usr/bin/env bash
# CONFIG PROCESSES [options of train.py]; several nodes: see launch.sh
set -euo pipefail

config="${1:?config}"
processes="${2:?number of processes per node (GPUs, or CPU processes)}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/launch.sh" "$here/train.py" "$processes" "$config" "${@:3}" --launcher pytorch
