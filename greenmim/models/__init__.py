# Copyright (c) greenmim authors. All rights reserved.
from greenmim import library_check  # noqa: F401
from .backbones import (CMT, GreenMIMCMT, GreenMIMConvNeXt, GreenMIMHiViT,
                        GreenMIMPCPVT, GreenMIMPVTv2, GreenMIMSVT,
                        GreenMIMSwinTransformer, GreenMIMSwinTransformerV2,
                        GreenMIMVisionTransformer, PyramidVisionTransformerV2)
from .heads import GreenMIMHead, SumOfHeads
from .masking import BlockMask, GivenMask, RandomMask, UniformMask
from .necks import (ConvNeck, FusionNeck, GreenMIMNeck, LinearNeck,
                    LocalReconstructionNeck, Neck)
from .selfsup import GreenMIM, JointMIM, MaskTokenMIM
from .target_generators import (EMATarget, HOGTarget, LowFrequencyTarget,
                                PixelTarget, Target, TeacherTarget,
                                TimmTeacher, TransformersTeacher)
from .utils import PatchXavierInit

__all__ = [
    'BlockMask', 'CMT', 'ConvNeck', 'EMATarget', 'FusionNeck', 'GivenMask',
    'GreenMIM', 'GreenMIMCMT', 'GreenMIMConvNeXt', 'GreenMIMHead',
    'GreenMIMHiViT', 'GreenMIMNeck', 'GreenMIMPCPVT', 'GreenMIMPVTv2',
    'GreenMIMSVT', 'GreenMIMSwinTransformer', 'GreenMIMSwinTransformerV2',
    'GreenMIMVisionTransformer', 'HOGTarget', 'JointMIM', 'LinearNeck',
    'LocalReconstructionNeck', 'LowFrequencyTarget', 'MaskTokenMIM', 'Neck',
    'PatchXavierInit', 'PixelTarget', 'PyramidVisionTransformerV2',
    'RandomMask', 'SumOfHeads', 'Target', 'TeacherTarget', 'TimmTeacher',
    'TransformersTeacher', 'UniformMask'
]
