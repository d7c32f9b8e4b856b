# Copyright (c) greenmim authors. All rights reserved.
"""SimMIM pre-training of the same backbone, every token computed.

Paper: the method of Xie et al., CVPR 2022, https://arxiv.org/abs/2111.09886,
    by MMPretrain's classes; the model, images and schedule of its base.
Command: python tools/train.py
    configs/benchmarks/small_images/simmim_swin-micro-p2-w4_1xb64-coslr-1200i_folder-32px.py
    --cfg-options train_dataloader.dataset.data_root=IMAGE_FOLDER
Hardware: a GPU, or a CPU core.
Batch: 1 x 64; learning rate 2e-3, not scaled.
Expected: depends on the images.
Measured: docs/does_it_help.md, on CIFAR-10.
"""  # noqa: E501
_base_ = ['greenmim_swin-micro-p2-w4_1xb64-coslr-1200i_folder-32px.py']

model = dict(
    _delete_=True,
    type='SimMIM',
    backbone=dict(
        type='SimMIMSwinTransformer',
        arch=_base_.model.backbone.arch,
        img_size=32,
        out_indices=(2, ),
        drop_path_rate=0.,
        norm_cfg=_base_.norm_cfg,
        # The class has no arguments for the size of patches and windows.
        patch_cfg=dict(kernel_size=2, stride=2, norm_cfg=_base_.norm_cfg),
        stage_cfgs=dict(
            window_size=4,
            block_cfgs=dict(norm_cfg=_base_.norm_cfg),
            downsample_cfg=dict(norm_cfg=_base_.norm_cfg))),
    neck=dict(type='SimMIMLinearDecoder', in_channels=128, encoder_stride=8),
    head=dict(
        type='SimMIMHead',
        patch_size=2,
        loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3)))

train_dataloader = dict(
    dataset=dict(pipeline=[
        *_base_.train_pipeline[:-1],
        dict(
            type='SimMIMMaskGenerator',
            input_size=32,
            mask_patch_size=8,
            model_patch_size=2,
            mask_ratio=0.6),
        dict(type='PackInputs')
    ]))

# MMPretrain's SimMIM has no masks to plan and no held-out loss to measure.
default_hooks = dict(
    _delete_=True,
    run_folder=dict(type='greenmim.RunFolderHook'),
    settings=dict(type='greenmim.LinkedSettingsHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='greenmim.SafeCheckpointHook',
        by_epoch=False,
        interval=1200,
        max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    unreadable_images=dict(type='greenmim.UnreadableImageHook'))
