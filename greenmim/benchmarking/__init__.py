# Copyright (c) greenmim authors. All rights reserved.
"""What training costs: comparisons of time and memory.

- ``contenders``, ``steps``, ``breakdown``, ``step_comparison``,
  ``step_command``: training steps of GreenMIM and of dense pre-training,
  compared.
- ``grouping``, ``attention_cost``, ``kernel_gradient``: parts of the method,
  measured alone.
- ``gpu_report``: all of it that a GPU should run, in a limited time.
- ``forecast``: what a run will take.
- ``input``: loading images with either decoder.
- ``windows``: loading windows of large images, and tiles cut before.
- ``comparison``: pre-trainings of the same budget, compared by what they
  learn.
- ``results``, ``pages``, ``plots``: JSON files with the hardware and versions
  of a result, and what the documents show of them.

The commands are in ``tools/analysis_tools`` and ``tools/benchmarks``, their
results in ``benchmarks``. Single steps are measured by
``greenmim.engine.cost``.
"""
