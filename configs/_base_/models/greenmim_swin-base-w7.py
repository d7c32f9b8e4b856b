# Copyright (c) greenmim authors. All rights reserved.
# GreenMIM on Swin-B, window 7, 224 px: 49 mask units of 32 px, 12 visible.

# The paper's LayerNorms all have eps 1e-6. The backbone's own `norm_cfg`
# reaches only the norms of its outputs: the patch embedding, the blocks and
# the patch merging are told one by one.
norm_cfg = dict(type='LN', eps=1e-6)

model = dict(
    type='greenmim.GreenMIM',
    mask_ratio=0.75,
    mask_scope='batch',
    backbone=dict(
        type='greenmim.GreenMIMSwinTransformer',
        arch='base',
        img_size=224,
        window_size=7,
        drop_path_rate=0.,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg))),
    neck=dict(
        type='greenmim.GreenMIMNeck',
        in_channels=1024,
        embed_dims=512,
        depth=1,
        num_heads=16,
        mlp_ratio=4.,
        norm_cfg=norm_cfg),
    head=dict(type='greenmim.GreenMIMHead', norm_pix=True))
