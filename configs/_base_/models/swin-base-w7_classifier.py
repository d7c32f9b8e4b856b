# Copyright (c) greenmim authors. All rights reserved.
# An image classifier on Swin-B, window 7, 224 px, that starts from a
# pre-training checkpoint.

# The paper's LayerNorms all have eps 1e-6, see greenmim_swin-base-w7.py.
norm_cfg = dict(type='LN', eps=1e-6)

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='greenmim.GreenMIMSwinTransformer',
        arch='base',
        img_size=224,
        window_size=7,
        drop_path_rate=0.1,
        norm_cfg=norm_cfg,
        patch_cfg=dict(norm_cfg=norm_cfg),
        stage_cfgs=dict(
            block_cfgs=dict(norm_cfg=norm_cfg),
            downsample_cfg=dict(norm_cfg=norm_cfg)),
        # Every recipe names its own; `model.backbone.init_cfg=None` trains
        # from scratch.
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=1024,
        # The classifier's `init_cfg` below takes its place.
        init_cfg=None,
        loss=dict(
            type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.),
        dict(type='Constant', layer='LayerNorm', val=1., bias=0.)
    ],
    train_cfg=dict(augments=[
        dict(type='Mixup', alpha=0.8),
        dict(type='CutMix', alpha=1.0)
    ]))
