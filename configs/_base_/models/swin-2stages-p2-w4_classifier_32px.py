# Copyright (c) greenmim authors. All rights reserved.
# A Swin of two stages and patches of 2 px, with a linear head.
norm_cfg = dict(type='LN', eps=1e-6)

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='SwinTransformer',
        arch=dict(embed_dims=64, depths=[1, 3], num_heads=[2, 4]),
        img_size=32,
        patch_size=2,
        window_size=4,
        out_indices=(1, ),
        drop_path_rate=0.,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg))),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
    # That of the pre-training, for what is not loaded.
    init_cfg=[
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='greenmim.PatchXavier'),
        dict(type='Constant', layer='LayerNorm', val=1.),
    ])
