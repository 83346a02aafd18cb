#!/usr/bin/env bash
# CONFIG CHECKPOINT PROCESSES [options of test.py]; several nodes: see launch.sh
set -euo pipefail

config="${1:?config}"
checkpoint="${2:?checkpoint}"
processes="${3:?number of processes per node (GPUs, or CPU processes)}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/launch.sh" "$here/test.py" "$processes" "$config" "$checkpoint" "${@:4}" --launcher pytorch
