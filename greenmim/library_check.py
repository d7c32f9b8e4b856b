# Copyright (c) greenmim authors. All rights reserved.
"""Checks the libraries of OpenMMLab or OneDL when it is imported."""
import warnings

from .libraries import check_libraries

# What mmcv-lite lacks, greenmim does not need.
warnings.filterwarnings('ignore', 'Fail to import')
warnings.filterwarnings('ignore', '.*torch.jit.*deprecated')

check_libraries()
