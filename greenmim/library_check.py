# Copyright (c) greenmim authors. All rights reserved.
"""Checks the libraries of OpenMMLab or OneDL when it is imported."""
import warnings
from importlib.util import find_spec

from .libraries import check_libraries

# What mmcv-lite lacks, greenmim does not need.
warnings.filterwarnings('ignore', 'Fail to import')
warnings.filterwarnings('ignore', '.*torch.jit.*deprecated')


def leave_out_multimodal() -> None:
    """Let MMPretrain be imported beside pycocotools and new transformers.

    With both installed, ``mmpretrain.models`` of MMPretrain 1.2 imports its
    models of images and text, which fail with transformers >= 4.52. Without
    them it has placeholders. greenmim needs none of them.
    """
    if find_spec('transformers') is None or find_spec('pycocotools') is None:
        return
    from mmpretrain.utils import dependency
    if dependency.satisfy_requirement('transformers>=4.52'):
        dependency.WITH_MULTIMODAL = False


check_libraries()
leave_out_multimodal()
