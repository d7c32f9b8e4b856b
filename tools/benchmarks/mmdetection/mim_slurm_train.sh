#!/usr/bin/env bash
# GPUS_PER_NODE=8 GPUS=16 bash \
#     tools/benchmarks/mmdetection/mim_slurm_train.sh PARTITION CONFIG BACKBONE \
#     [KEY=VALUE ...] [arguments of the library's tools/train.py]
# BACKBONE is a file of tools/model_converters/export_backbone.py. KEY=VALUE
# changes the config. SRUN_ARGS holds further arguments of srun, CPUS_PER_TASK
# the cores of each process.

exec bash "$(dirname "$0")/../mim_slurm_train.sh" mmdet "$@"
