#!/usr/bin/env bash
# GPUS_PER_NODE=8 GPUS=8 bash tools/slurm_test.sh PARTITION JOB CONFIG \
#     CHECKPOINT [arguments of tools/test.py]
# SRUN_ARGS holds further arguments of srun, CPUS_PER_TASK the cores of each.

USAGE='slurm_test.sh PARTITION JOB CONFIG CHECKPOINT [arguments]'
PARTITION=${1:?PARTITION is missing: $USAGE}
JOB=${2:?JOB is missing: $USAGE}
CONFIG=${3:?CONFIG is missing: $USAGE}
CHECKPOINT=${4:?CHECKPOINT is missing: $USAGE}

exec bash "$(dirname "$0")/slurm.sh" "$PARTITION" "$JOB" test.py \
    "$CONFIG" "$CHECKPOINT" --launcher slurm "${@:5}"
