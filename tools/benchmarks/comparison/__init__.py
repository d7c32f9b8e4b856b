# Copyright (c) greenmim authors. All rights reserved.
"""The parts of the comparison scripts beside this folder."""
