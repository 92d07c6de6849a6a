#!/usr/bin/env bash
# Test with several processes: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py].
# Without a GPU, GPUS is the number of CPU processes. Several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT.
set -euo pipefail
fixed=("${1:?CONFIG}" "${2:?CHECKPOINT}")
processes="${3:?GPUS}"
shift 3

exec python "$(dirname "$0")/dist_run.py" \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$processes" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
  "$(dirname "$0")/test.py" "${fixed[@]}" --launcher pytorch "$@"
