# Copyright (c) greenmim authors. All rights reserved.
# GreenMIM on Twins-SVT-L, 224 px: 49 mask units of 32 px, 12 visible.
_base_ = ['./greenmim_swin-base-w7.py']

# All of the paper's LayerNorms. The backbone's `norm_cfg` does not reach those
# of the patch embeddings.
norm_cfg = dict(type='LN', eps=1e-6)

model = dict(
    backbone=dict(
        _delete_=True,
        type='greenmim.GreenMIMSVT',
        arch='large',
        qkv_bias=True,
        norm_after_stage=[False, False, False, True],
        norm_cfg=norm_cfg,
        patch_norm_cfg=norm_cfg,
        # GreenMIM's own, which that of the backbone would follow.
        init_cfg=[
            dict(type='Xavier', layer='Linear', distribution='uniform'),
            dict(type='greenmim.PatchXavier'),
            dict(type='Constant', layer='LayerNorm', val=1.),
        ]))
