# Copyright (c) greenmim authors. All rights reserved.
from .greenmim import GreenMIM

__all__ = ['GreenMIM']
