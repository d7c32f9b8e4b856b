# Copyright (c) greenmim authors. All rights reserved.
"""What training costs: time, memory, and comparisons of both.

- ``timing``, ``memory``: measurements, which the report of a run uses, too.
- ``contenders``, ``steps``, ``breakdown``, ``step_comparison``: training steps
  of GreenMIM and of dense pre-training, compared.
- ``grouping``, ``attention_cost``: parts of the method, measured alone.
- ``forecast``: what a run will take.
- ``comparison``: pre-trainings of the same budget, compared by what they
  learn.
- ``results``, ``tables``, ``pages``, ``plots``: JSON files with the hardware
  and versions of a result, and what the documents show of them.

The commands are in ``tools/analysis_tools`` and ``tools/benchmarks``, their
results in ``benchmarks``. Nothing is imported here, since ``greenmim.engine``
imports ``timing`` and ``memory``, and other modules import the engine.
"""
