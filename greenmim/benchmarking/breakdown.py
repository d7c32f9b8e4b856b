# Copyright (c) greenmim authors. All rights reserved.
"""Where the time of a step goes, from one step under PyTorch's profiler.

Planning, decoder, loss and optimizer are ranges that the contenders name and
count as a whole. Everything else is counted by its operator, alike for all
backbones. An operator of the backward pass belongs to the range of the
forward operator whose gradient it computes: the profiler gives both the same
sequence number.
"""
import re
from dataclasses import replace
from functools import lru_cache
from typing import Callable, Dict, Optional, Tuple

from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import profile, record_function

from .contenders import REGION, Contender
from .steps import Stepper

# Kind of work -> regular expression of operators and autograd functions.
OPERATORS = {
    'matrix products':
    r'aten::(mm|addmm|linear|convolution(_backward)?)',
    'attention':
    r'aten::(bmm|baddbmm|_softmax(_backward_data)?)|.*(?i:attention).*',
    'gathers':
    r'aten::(index_select|index|_?index_put_(impl_)?|index_add_|gather|'
    r'scatter_|roll|im2col|col2im)',
    'norms':
    r'aten::(native|cudnn)_\w+_norm(_backward)?',
    'activations':
    r'aten::(gelu|silu|relu|threshold)(_backward)?_?',
    # Whose copies do not move tokens.
    'other':
    r'aten::_to_copy|torch::autograd::AccumulateGrad',
}
# They are gathers, unless they are part of an operator above.
COPIES = ('aten::copy_', 'aten::clone', 'aten::contiguous')
# Ranges that are one kind of work, whichever operators they run.
WHOLE = ('planning', 'decoder', 'loss', 'optimiser')
KINDS = (*OPERATORS, *WHOLE)

OPTIMIZER = 'Optimizer.step'
BACKWARD = 'autograd::engine::evaluate_function: '
# Thread and sequence number of a forward operator -> the range it runs in.
Regions = Dict[Tuple[int, int], Optional[str]]


def breakdown(contender: Contender,
              step: Stepper,
              make_optimizer: Optional[Callable] = None) -> Dict[str, float]:
    """The share of every kind of work in a step.

    On a CPU the shares are of the whole step; the time between operators is
    "other". On a GPU they are of the time that its kernels take. With
    ``make_optimizer`` the optimizer's step is counted, too.
    """
    contender = replace(
        contender, draw=record_function(f'{REGION}planning')(contender.draw))
    optimizer = None
    if make_optimizer is not None:
        optimizer = make_optimizer(contender.model.parameters())
        step(contender, optimizer)  # its state is made in the first step
    on_gpu = step.device.type == 'cuda'
    with profile() as profiler, record_function(f'{REGION}other'):
        step(contender, optimizer)

    events = [
        event for event in profiler.events()
        if event.device_type == DeviceType.CPU
    ]
    regions: Regions = {}
    for event in events:
        if event.sequence_nr >= 0 and not event.name.startswith(BACKWARD):
            _, region = _find(event, regions)
            regions[event.thread, event.sequence_nr] = region
    seconds = dict.fromkeys(KINDS, 0.)
    for event in events:
        operator, region = _find(event, regions)
        kind = region if region in WHOLE else operator or 'other'
        if not on_gpu:
            seconds[kind] += event.self_cpu_time_total
        elif not event.name.startswith(REGION):
            # The profiler shows ranges as if they were kernels.
            seconds[kind] += event.self_device_time_total
    total = sum(seconds.values())
    return {kind: spent / total for kind, spent in seconds.items()}


def _find(event: Optional[FunctionEvent],
          regions: Regions) -> Tuple[Optional[str], Optional[str]]:
    """Kind of the operator, and the range, that an event belongs to."""
    operator = None
    otherwise = 'gathers' if event and event.name in COPIES else None
    while event is not None:
        operator = operator or _kind_of_operator(event.name)
        if event.name.startswith(REGION):
            return operator or otherwise, event.name[len(REGION):]
        if event.name.startswith(OPTIMIZER):
            return operator, 'optimiser'
        forward = (event.fwd_thread, event.sequence_nr)
        if event.name.startswith(BACKWARD) and forward in regions:
            return operator or otherwise, regions[forward]
        event = event.cpu_parent
    return operator or otherwise, None


@lru_cache(maxsize=None)
def _kind_of_operator(name: str) -> Optional[str]:
    for kind, pattern in OPERATORS.items():
        if re.fullmatch(pattern, name):
            return kind
    return None
