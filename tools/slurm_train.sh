#!/usr/bin/env bash
# Train on a Slurm cluster: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py].
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS and more: see slurm_run.sh and docs/clusters.md.
: "${3:?PARTITION JOB_NAME CONFIG}"
exec bash "$(dirname "$0")/slurm_run.sh" train.py "$@"
