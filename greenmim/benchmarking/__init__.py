# Copyright (c) greenmim authors. All rights reserved.
"""What training costs: time, memory, and comparisons of both.

- ``timing``, ``memory``: measurements; the report of a run uses them, too.
- ``environment``, ``tables``: what was measured on, and how it is shown.

The commands are in ``tools/analysis_tools`` and ``tools/benchmarks``, their
results in ``benchmarks``. Nothing is imported here, since ``timing`` and
``memory`` are below ``greenmim.engine`` and the other modules above it.
"""
