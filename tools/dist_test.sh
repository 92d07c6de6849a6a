#!/usr/bin/env bash
# Test with several processes: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py].
# Without a GPU, GPUS is the number of CPU processes. Several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT.
exec bash "$(dirname "$0")/dist_run.sh" test.py "${3:?CONFIG CHECKPOINT GPUS}" "$1" "$2" "${@:4}"
