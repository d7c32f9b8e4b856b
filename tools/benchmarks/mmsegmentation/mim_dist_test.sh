#!/usr/bin/env bash
# bash tools/benchmarks/mmsegmentation/mim_dist_test.sh CONFIG CHECKPOINT GPUS \
#     [arguments of the library's tools/test.py]
# CHECKPOINT is a file of the training. Without a GPU, GPUS is 0.

exec bash "$(dirname "$0")/../mim_dist_test.sh" mmsegmentation "$@"
