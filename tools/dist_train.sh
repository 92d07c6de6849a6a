#!/usr/bin/env bash
# Train with several processes: tools/dist_train.sh CONFIG GPUS [options of tools/train.py].
# Without a GPU, GPUS is the number of CPU processes. Several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT.
set -euo pipefail
fixed=("${1:?CONFIG}")
processes="${2:?GPUS}"
shift 2

exec python "$(dirname "$0")/dist_run.py" \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$processes" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
  "$(dirname "$0")/train.py" "${fixed[@]}" --launcher pytorch "$@"
