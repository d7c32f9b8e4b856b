# Copyright (c) greenmim authors. All rights reserved.
"""Peak memory of this process and of single training steps."""
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Callable, Optional

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile


def peak_memory() -> Optional[int]:
    """The peak memory of this process in bytes, on the GPU if it has one.

    Without a GPU it is all memory of the process, the program itself
    included, without its data-loading workers; None on Windows.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    # On Linux the peak that getrusage reports starts with the memory of the
    # parent process.
    status = Path('/proc/self/status')
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith('VmHWM:'):
                return 1024 * int(line.split()[1])
    if find_spec('resource') is None:  # on Windows
        return None
    import resource
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_limit() -> int:
    """Bytes of the GPU, or of the machine or container that runs us."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    limit = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    try:
        container = Path('/sys/fs/cgroup/memory.max').read_text()
        return min(limit, int(container))
    except (OSError, ValueError):  # there is none, or 'max'
        return limit


def step_memory(model: nn.Module, step: Callable[[], object],
                device: torch.device) -> int:
    """Bytes that a model and one training step need at once.

    These are weights, activations, gradients and temporary tensors, without
    the optimizer's state, which is the same whatever is computed. What else
    is on the device is not counted.
    """
    model.zero_grad(set_to_none=True)
    weights = [*model.parameters(), *model.buffers()]
    return _allocated_by(step, model, device) + sum(tensor.nbytes
                                                    for tensor in weights)


def _allocated_by(step: Callable[[], object], model: nn.Module,
                  device: torch.device) -> int:
    """The most bytes that a step holds at once beside what there was."""
    if device.type == 'cuda':
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    # What is held at a moment is recorded only in a trace.
    with profile(
            activities=[ProfilerActivity.CPU],
            profile_memory=True) as profiler:
        step()
        # The profiler keeps counting what it does not see freed.
        model.zero_grad(set_to_none=True)
    with TemporaryDirectory() as folder:
        trace = Path(folder) / 'trace.json'
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())['traceEvents']
    return max(event['args']['Total Allocated'] for event in events
               if event['name'] == '[memory]')
