#!/usr/bin/env bash
# bash tools/benchmarks/mmdetection/mim_dist_train.sh CONFIG BACKBONE GPUS \
#     [KEY=VALUE ...] [arguments of the library's tools/train.py]
# BACKBONE is a file of tools/model_converters/export_backbone.py. KEY=VALUE
# changes the config. Without a GPU, GPUS is 0.

exec bash "$(dirname "$0")/../mim_dist_train.sh" mmdet "$@"
