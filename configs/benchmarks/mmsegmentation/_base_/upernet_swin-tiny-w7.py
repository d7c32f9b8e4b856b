# Copyright (c) greenmim authors. All rights reserved.
# UPerNet on Swin-T, window 7, with an auxiliary head on the third stage.

# The LayerNorms of the pre-training all have eps 1e-6.
norm_cfg = dict(type='LN', eps=1e-6)
head_norm_cfg = dict(type='SyncBN', requires_grad=True)

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512)),
    # `greenmim.GreenMIMSwinTransformer` does as well: without a mask it is
    # the same network, with the same parameters.
    backbone=dict(
        type='mmpretrain.SwinTransformer',
        arch='tiny',
        window_size=7,
        # A map as large as the window is shifted like any other, as in
        # MMSegmentation's own Swin, and a smaller one is padded.
        pad_small_map=True,
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.3,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg)),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/greenmim_swin-tiny-w7_8xb256-amp-coslr-'
            '200e_in1k/backbone_mmseg.pth',
            prefix='backbone.')),
    decode_head=dict(
        type='UPerHead',
        in_channels=[96, 192, 384, 768],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=head_norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False)),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=384,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=head_norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
