#!/usr/bin/env bash
# Index videos on a Slurm cluster: tools/slurm_index.sh PARTITION JOB_NAME FOLDER MODEL [options of clipbert index].
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS and more: see slurm_run.sh and docs/clusters.md.
exec bash "$(dirname "$0")/slurm_run.sh" index.py "${1:?PARTITION}" "${2:?JOB_NAME}" "${3:?FOLDER}" --model "${4:?MODEL}" "${@:5}"
