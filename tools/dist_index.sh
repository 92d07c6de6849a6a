#!/usr/bin/env bash
# Index videos by several processes: tools/dist_index.sh FOLDER MODEL GPUS [options of clipbert index].
# Without a GPU, GPUS is the number of CPU processes. Several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT.
exec bash "$(dirname "$0")/dist_run.sh" index.py "${3:?FOLDER MODEL GPUS}" "$1" --model "$2" "${@:4}"
