#!/usr/bin/env bash
# PARTITION JOB_NAME CONFIG [options of train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS come from the environment. To be saved before the time
# is over: SRUN_ARGS='--time=4:00:00 --signal=USR1@120', and --resume among the options.
set -euo pipefail

partition="${1:?partition}"
job_name="${2:?job name}"
config="${3:?config}"
gpus="${GPUS:-8}"
gpus_per_node="${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}"
read -r -a srun_args <<<"${SRUN_ARGS:-}"

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# In a checkout that is not installed the package lies beside this folder.
[[ ! -d "$here/../mmkd_ext" ]] || export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec srun --partition="$partition" --job-name="$job_name" --gres="gpu:$gpus_per_node" \
  --ntasks="$gpus" --ntasks-per-node="$gpus_per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" \
  --kill-on-bad-exit=1 ${srun_args[@]+"${srun_args[@]}"} \
  "${PYTHON:-python}" -u "$here/train.py" "$config" --launcher slurm "${@:4}"
