#!/usr/bin/env bash
# SCRIPT PROCESSES [arguments of the script]: start a Python script in several processes per node.
# One node:           nothing to set; a free port is found.
# Several, static:    NNODES=2 NODE_RANK=0 MASTER_ADDR=host PORT=29500, once per node with its own NODE_RANK.
# Several, by c10d:   NNODES=2 RDZV_ENDPOINT=host:29500 [RDZV_ID=name], the same on every node, ranks are dealt out.
# TORCHRUN_ARGS:      further options of torchrun, for instance --max-restarts=3.
set -euo pipefail

script="${1:?script}"
processes="${2:?number of processes per node (GPUs, or CPU processes)}"
nodes="${NNODES:-1}"
read -r -a options <<<"${TORCHRUN_ARGS:-}"

if [[ -n "${RDZV_ENDPOINT:-}" ]]; then
  options+=(--rdzv-backend=c10d "--rdzv-endpoint=$RDZV_ENDPOINT" "--rdzv-id=${RDZV_ID:-mmkd}")
elif [[ "$nodes" == 1 && -z "${PORT:-}" ]]; then
  options+=(--standalone)
elif [[ "$nodes" != 1 && (-z "${NODE_RANK:-}" || -z "${MASTER_ADDR:-}") ]]; then
  echo "launch.sh: expected NODE_RANK and MASTER_ADDR, or RDZV_ENDPOINT, for NNODES=$nodes; set them on each node" >&2
  exit 2
else
  options+=("--node-rank=${NODE_RANK:-0}" "--master-addr=${MASTER_ADDR:-127.0.0.1}" "--master-port=${PORT:-29500}")
fi

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# In a checkout that is not installed the package lies beside this folder.
[[ ! -d "$here/../mmkd_ext" ]] || export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m torch.distributed.run "--nnodes=$nodes" "--nproc-per-node=$processes" "${options[@]}" \
  "$script" "${@:3}"
