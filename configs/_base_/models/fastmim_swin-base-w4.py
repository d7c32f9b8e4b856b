# Copyright (c) greenmim authors. All rights reserved.
# FastMIM on Swin-B, window 4, 128 px: 16 mask units of 32 px, 4 visible, each
# of the others one colour that is learned. All of the image is computed.
norm_cfg = dict(type='LN', eps=1e-5)

model = dict(
    type='greenmim.MaskTokenMIM',
    mask_token='pixel',
    mask_ratio=0.75,
    mask_scope='image',
    backbone=dict(
        type='greenmim.GreenMIMSwinTransformer',
        arch='base',
        img_size=128,
        window_size=4,
        drop_path_rate=0.,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg))),
    neck=dict(
        type='greenmim.GreenMIMNeck',
        in_channels=1024,
        embed_dims=256,
        depth=4,
        num_heads=8,
        out_channels=432,
        norm_cfg=norm_cfg,
        pos_embed=False,
        mask_token=False),
    head=dict(
        type='greenmim.GreenMIMHead', target=dict(type='greenmim.HOGTarget')),
    init_cfg=[
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='Constant', layer='LayerNorm', val=1.)
    ])
