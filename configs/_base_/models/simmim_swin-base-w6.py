# Copyright (c) greenmim authors. All rights reserved.
# SimMIM on Swin-B, window 6, 192 px: 36 mask units of 32 px, 14 visible, a
# learned token in the place of the patches of the others. All of the image is
# computed; a linear layer predicts pixels.
norm_cfg = dict(type='LN', eps=1e-5)

model = dict(
    type='greenmim.MaskTokenMIM',
    mask_token='embed',
    mask_ratio=0.6,
    mask_scope='image',
    backbone=dict(
        type='greenmim.GreenMIMSwinTransformer',
        arch='base',
        img_size=192,
        window_size=6,
        drop_path_rate=0.,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg))),
    neck=dict(type='greenmim.LinearNeck', in_channels=1024),
    head=dict(
        type='greenmim.GreenMIMHead',
        norm_pix=False,
        loss=dict(type='PixelReconstructionLoss', criterion='L1')),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.),
        dict(type='Constant', layer='LayerNorm', val=1., bias=0.)
    ])
