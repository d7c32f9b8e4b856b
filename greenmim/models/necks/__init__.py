# Copyright (c) greenmim authors. All rights reserved.
from .base import Neck
from .conv_neck import ConvNeck
from .greenmim_neck import GreenMIMNeck
from .linear_neck import LinearNeck
from .stage_necks import FusionNeck, LocalReconstructionNeck

__all__ = [
    'ConvNeck', 'FusionNeck', 'GreenMIMNeck', 'LinearNeck',
    'LocalReconstructionNeck', 'Neck'
]
