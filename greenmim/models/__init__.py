# Copyright (c) greenmim authors. All rights reserved.
from .backbones import GreenMIMSwinTransformer
from .heads import GreenMIMHead, SumOfHeads
from .mask_samplers import BlockMask, GivenMask, RandomMask, UniformMask
from .necks import (ConvNeck, FusionNeck, GreenMIMNeck, LinearNeck,
                    LocalReconstructionNeck)
from .selfsup import GreenMIM, MaskTokenMIM
from .target_generators import (HOGTarget, LowFrequencyTarget, PixelTarget,
                                TeacherTarget)
from .utils import PatchXavierInit

__all__ = [
    'BlockMask', 'ConvNeck', 'FusionNeck', 'GivenMask', 'GreenMIM',
    'GreenMIMHead', 'GreenMIMNeck', 'GreenMIMSwinTransformer', 'HOGTarget',
    'LinearNeck', 'LocalReconstructionNeck', 'LowFrequencyTarget',
    'MaskTokenMIM', 'PatchXavierInit', 'PixelTarget', 'RandomMask',
    'SumOfHeads', 'TeacherTarget', 'UniformMask'
]
