# Copyright (c) greenmim authors. All rights reserved.
"""The version of greenmim; setup.cfg reads it without an import."""
__version__ = '0.2.0'
