#!/usr/bin/env bash
# Train with several processes: tools/dist_train.sh CONFIG GPUS [options of tools/train.py].
# Without a GPU, GPUS is the number of CPU processes. Several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT.
exec bash "$(dirname "$0")/dist_run.sh" train.py "${2:?CONFIG GPUS}" "$1" "${@:3}"
