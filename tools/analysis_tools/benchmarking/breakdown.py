# Copyright (c) greenmim authors. All rights reserved.
"""Where the time of a step goes, from one step under PyTorch's profiler.

Planning, decoder, loss, attention and copies between windows are found by the
function that they run in; matrix products, gathers, norms and activations by
the operator. An operator of the backward pass belongs where the forward
operator is whose gradient it computes: the profiler gives both one number.
"""
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Callable, Dict, Iterator, Optional, Tuple
from unittest import mock

from mmpretrain.models.utils import ShiftWindowMSA, WindowMSA
from torch import nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

import greenmim.models.visible.swin as green_layers
import greenmim.models.visible.visible_swin as green_backbone
from greenmim.ops import GroupIndex
from .contenders import Contender
from .measure import Stepper

OPERATORS = {
    'matrix products':
    ('mm', 'addmm', 'linear', 'convolution', 'convolution_backward'),
    'gathers':
    ('index_select', 'index', 'index_put_', '_index_put_impl_', 'index_add_',
     'gather', 'scatter_', 'roll', 'im2col', 'col2im'),
    'norms': ('native_layer_norm', 'native_layer_norm_backward'),
    'activations': ('gelu', 'gelu_backward'),
}
KIND_OF_OPERATOR = {
    f'aten::{operator}': kind
    for kind, operators in OPERATORS.items()
    for operator in operators
}
# Functions that are one kind of work, whichever operators they run. In the
# others an operator's own kind comes first.
WHOLE = ('planning', 'decoder', 'loss', 'optimiser')
KINDS = ('matrix products', 'attention', 'gathers', 'norms', 'activations',
         'other', *WHOLE)

REGION = 'greenmim: '
OPTIMIZER = 'Optimizer.step'
BACKWARD = 'autograd::engine::evaluate_function: '
# Thread and sequence number of a forward operator -> the function it runs in.
Regions = Dict[Tuple[int, int], Optional[str]]


def breakdown(contender: Contender,
              step: Stepper,
              make_optimizer: Optional[Callable] = None) -> Dict[str, float]:
    """The share of every kind of work in a step.

    On a CPU the shares are of the whole step; the time between operators is
    "other". On a GPU they are of the time that its kernels take.

    Args:
        contender (Contender): The contender.
        step (Stepper): Runs a step.
        make_optimizer (Callable, optional): Makes an optimizer for
            parameters, whose step is counted, too. Defaults to None.
    """
    contender = replace(
        contender, draw=record_function(f'{REGION}planning')(contender.draw))
    optimizer = None
    if make_optimizer is not None:
        optimizer = make_optimizer(contender.model.parameters())
        step(contender, optimizer)  # its state is made in the first step
    activities = [ProfilerActivity.CPU]
    on_gpu = step.device.type == 'cuda'
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    with _named_regions(
            contender.model), profile(activities=activities) as profiler:
        with record_function(f'{REGION}other'):
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
        kind = region if region in WHOLE else operator or region or 'other'
        if not on_gpu:
            seconds[kind] += event.self_cpu_time_total
        elif not event.name.startswith(REGION):
            # The profiler shows regions as if they were kernels.
            seconds[kind] += event.self_device_time_total
    total = sum(seconds.values())
    return {kind: spent / total for kind, spent in seconds.items()}


def _find(event: Optional[FunctionEvent],
          regions: Regions) -> Tuple[Optional[str], Optional[str]]:
    """Kind of the operator, and of the function, that an event belongs to."""
    operator = None
    while event is not None:
        operator = operator or KIND_OF_OPERATOR.get(event.name)
        if event.name.startswith(REGION):
            return operator, event.name[len(REGION):]
        if event.name.startswith(OPTIMIZER):
            return operator, 'optimiser'
        forward = (event.fwd_thread, event.sequence_nr)
        if event.name.startswith(BACKWARD) and forward in regions:
            return operator, regions[forward]
        event = event.cpu_parent
    return operator, None


@contextmanager
def _named_regions(model: nn.Module) -> Iterator[None]:
    """Show functions of the models to the profiler."""
    functions = [
        (vars(GroupIndex)['rows'], 'func', 'planning'),
        (vars(GroupIndex)['bias_of_pair'], 'func', 'planning'),
        (green_backbone, 'patches_of_units', 'gathers'),
        (green_layers, 'merge_tokens', 'gathers'),
        (green_layers, 'group_attention', 'attention'),
        (ShiftWindowMSA, 'forward', 'gathers'),
        (WindowMSA, 'forward', 'attention'),
    ]
    if hasattr(model, 'neck'):
        functions += [(type(model.neck), 'forward', 'decoder'),
                      (type(model.head), 'loss', 'loss')]
    with ExitStack() as stack:
        for owner, name, kind in functions:
            named = record_function(REGION + kind)(getattr(owner, name))
            stack.enter_context(mock.patch.object(owner, name, named))
        yield
