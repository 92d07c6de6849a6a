#!/usr/bin/env bash
# Shared by dist_train.sh, dist_test.sh and dist_index.sh: dist_run.sh SCRIPT PROCESSES ARGUMENTS... starts a script of this folder.
# On several machines: the same command on each, with NNODES, NODE_RANK (0 on the first), MASTER_ADDR (the first) and PORT.
set -euo pipefail
script="$1" processes="$2"
shift 2
[[ "$processes" =~ ^[1-9][0-9]*$ ]] || { echo "error: expected a number of processes (GPUS), got '$processes'." >&2; exit 2; }

if [[ -z "${OMP_NUM_THREADS:-}" ]]; then
  threads=1 # where GPUs compute
  nvidia-smi -L &> /dev/null || threads=$(( $(nproc) / processes ))
  export OMP_NUM_THREADS=$(( threads > 0 ? threads : 1 ))
fi
export MKL_NUM_THREADS="${MKL_NUM_THREADS:-$OMP_NUM_THREADS}" # else MMEngine sets it, with a warning from each process
if [[ "${NNODES:-1}" == 1 ]]; then # any free port, so that runs on one machine do not collide, unless PORT is set
  address=(--rdzv-backend=c10d "--rdzv-endpoint=127.0.0.1:${PORT:-0}" --local-addr=127.0.0.1)
else
  address=(--node_rank="${NODE_RANK:?NODE_RANK: the number of this machine, from 0}"
    --master_addr="${MASTER_ADDR:?MASTER_ADDR: the address of machine 0}" --master_port="${PORT:-29500}")
fi
exec python "$(dirname "$0")/torch_run.py" --nnodes="${NNODES:-1}" --nproc_per_node="$processes" "${address[@]}" \
  "$(dirname "$0")/$script" "$@" --launcher pytorch
