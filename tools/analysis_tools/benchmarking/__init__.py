# Copyright (c) greenmim authors. All rights reserved.
"""The parts of the benchmark scripts beside this folder."""
