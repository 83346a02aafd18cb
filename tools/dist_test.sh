#!/usr/bin/env bash
# CONFIG CHECKPOINT PROCESSES [options of test.py]
# Several nodes: NNODES=2 NODE_RANK=0 MASTER_ADDR=host PORT=29500 tools/dist_test.sh ..., once per node.
set -euo pipefail

config="${1:?config}"
checkpoint="${2:?checkpoint}"
processes="${3:?number of processes per node (GPUs, or CPU processes)}"
arguments=("$config" "$checkpoint" "${@:4}")

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
  --nproc_per_node="$processes" \
  "$here/test.py" "${arguments[@]}" --launcher pytorch
