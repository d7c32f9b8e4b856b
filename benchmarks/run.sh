#!/usr/bin/env bash
# Copyright (c) greenmim authors. All rights reserved.
# Measure everything that docs/benchmarks.md shows, on a CPU:
#
#     bash benchmarks/run.sh [HARDWARE]
#     python tools/analysis_tools/plot_benchmarks.py
#
# It takes about 20 minutes on two cores that have nothing else to do. A file
# that exists is not measured again, so that an interrupted run can be resumed.
# HARDWARE is the last word of the files' names. On a GPU run
# tools/analysis_tools/gpu_report.py instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

HARDWARE=${1:-cpu-$(nproc)-cores}
ROUNDS=5 FEW=3

SWIN_B=swin-base-w7_8xb256-amp-coslr-800e
SWIN_B_W14=swin-base-w14_8xb256-amp-coslr-800e
SWIN_L=swin-large-w14_8xb256-amp-coslr-800e
SWIN_T=swin-tiny-w7_8xb256-amp-coslr-200e
CONVNEXT_B=convnext-base_8xb256-amp-coslr-800e
PVT_V2_B2=pvt-v2-b2_8xb256-amp-coslr-800e
TWINS_SVT_B=twins-svt-base_8xb256-amp-coslr-100e
TWINS_PCPVT_B=twins-pcpvt-base_8xb256-amp-coslr-100e
VIT_B=vit-base-p16_8xb256-amp-coslr-800e
HIVIT_B=hivit-base_8xb256-amp-coslr-800e
SWIN_V2_B=swin-v2-base-w8_8xb256-amp-coslr-800e

# measure PURPOSE RECIPE IMAGE_SIZE MASK_RATIO BATCH_SIZE CONDITION ARGUMENTS
measure() {
    local file=benchmarks/$1_${2%%_*}_${3}px_r${4}_bs${5}_fp32$6_$HARDWARE.json
    [ ! -e "$file" ] || return 0
    python -W ignore tools/analysis_tools/benchmark.py "configs/greenmim_${2}_in1k.py" \
        --image-size "$3" --mask-ratio "$4" --batch-size "$5" --device cpu \
        --json "$file" "${@:7}"
}

measure step $SWIN_B 224 0.75 8 '' --rounds $ROUNDS --mask-scope batch,image --optimizer --breakdown
measure step $SWIN_B 224 0.6 8 '' --rounds $FEW
measure step $SWIN_B_W14 224 0.75 8 '' --rounds $FEW
measure step $SWIN_L 224 0.75 8 '' --rounds $FEW
measure step $SWIN_T 224 0.75 8 '' --rounds $ROUNDS
measure step $SWIN_T 224 0.75 64 '' --rounds $FEW --mask-scope batch,image --against ''
for recipe in $CONVNEXT_B $PVT_V2_B2 $TWINS_SVT_B $TWINS_PCPVT_B $VIT_B $HIVIT_B; do
    measure step $recipe 224 0.75 8 '' --rounds $FEW
done
measure step $SWIN_V2_B 256 0.75 8 '' --rounds $FEW

for ratio in 0.5 0.6 0.7 0.75 0.8 0.9; do
    measure ratio $SWIN_T 224 $ratio 8 '' --rounds $FEW --against simmim
done

# About as many visible tokens in a step, whatever the size.
for size in 224:16 320:8 448:4 640:2 896:1; do
    measure size $SWIN_T ${size%:*} 0.75 ${size#*:} '' --rounds 15 --against ''
done

measure memory $SWIN_B 224 0.75 8 '' --rounds $FEW --against simmim
measure memory $SWIN_B 224 0.75 8 -cp --rounds $FEW --against simmim --with-cp

measure_grouping() {
    local file=benchmarks/grouping_$1_$HARDWARE.json
    [ -e "$file" ] || python -W ignore tools/analysis_tools/benchmark_grouping.py --json "$file" "${@:2}"
}

FILE=benchmarks/attention-cost_swin_bs1_fp32_$HARDWARE.json
[ -e "$FILE" ] || python -W ignore tools/analysis_tools/fit_attention_cost.py --device cpu \
    --batch-size 1 --rounds 30 --json "$FILE"

measure_grouping shared --image-size 224 512 1024
measure_grouping per-image --image-size 224 --num-masks 64
