#!/usr/bin/env bash
# Shared by slurm_{train,test,index}.sh: slurm_run.sh SCRIPT PARTITION JOB_NAME ARGUMENTS... starts a script of this
# folder by srun, one task per GPU. Variables: GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), GRES (gpu:GPUS_PER_NODE; empty for
# a partition without GPUs, where a task is a CPU process), NOTICE (USR1@300: signal and seconds before the time limit), and
# SRUN_ARGS (more options of srun).
set -euo pipefail
script="$1" partition="$2" job="$3"
shift 3
tasks="${GPUS:-8}"
per_node="${GPUS_PER_NODE:-8}"
(( per_node <= tasks )) || per_node="$tasks"
cpus="${CPUS_PER_TASK:-5}"
gres="${GRES-gpu:$per_node}"
if [[ -n "$gres" ]]; then
  resources=(--gres="$gres")
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
else
  resources=()
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$cpus}"
fi
read -ra more <<< "${SRUN_ARGS:-}"
exec srun --partition="$partition" --job-name="$job" --ntasks="$tasks" --ntasks-per-node="$per_node" --cpus-per-task="$cpus" \
  "${resources[@]}" --kill-on-bad-exit=1 --signal="${NOTICE:-USR1@300}" "${more[@]}" \
  python -u "$(dirname "$0")/$script" "$@" --launcher slurm
