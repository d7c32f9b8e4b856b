# Copyright (c) greenmim authors. All rights reserved.
"""Backbones of the common tests; a new one is a file and a line here."""
from .convnext import CONVNEXT
from .swin import SWIN

FAMILIES = [CONVNEXT, SWIN]
