# Copyright (c) greenmim authors. All rights reserved.
r"""GreenMIM pre-training of Swin-B, window 7: 100 epochs of ImageNet-1k.

Paper: Huang et al., "Green Hierarchical Vision Transformer for Masked Image
    Modeling", NeurIPS 2022, https://arxiv.org/abs/2205.13515
Command: GPUS=16 GPUS_PER_NODE=8 bash tools/slurm_train.sh PARTITION JOB \
    configs/greenmim_swin-base_16xb128-amp-coslr-100e_in1k.py
Hardware: 16 GPUs with 128 images each; time and memory not measured.
Batch: 16 x 128 = 2048; learning rate 1.5e-4 * 2048 / 256 = 1.2e-3.
Expected: no result of the authors is known for 100 epochs.
Measured: not measured by this project.

The warm-up stays at the paper's 40 epochs. For a shorter one, say 10 epochs:
`--cfg-options param_scheduler.0.end=10 param_scheduler.1.begin=10`.
"""
_base_ = [
    '_base_/models/greenmim_swin-base-w7.py',
    '_base_/datasets/imagenet_bs256_greenmim.py',
    '_base_/schedules/greenmim_bs2048_adamw_coslr.py',
    '_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=128)

train_cfg = dict(max_epochs=100)
warm_up = dict(of=100)
