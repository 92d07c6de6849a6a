#!/usr/bin/env bash
# Test on a Slurm cluster: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py].
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS and more: see slurm_run.sh and docs/clusters.md.
: "${4:?PARTITION JOB_NAME CONFIG CHECKPOINT}"
exec bash "$(dirname "$0")/slurm_run.sh" test.py "$@"
