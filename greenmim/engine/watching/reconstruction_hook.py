# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Dict, List, Optional, Sequence

import torch
from mmengine.runner import Runner

from greenmim.evaluation import evaluating
from greenmim.models.masking.data_samples import read_plan
from greenmim.registry import HOOKS
from greenmim.visualization import (captions_of, draw_sheet,
                                    reconstruction_columns)
from ..fully_sharded import call_gathered
from .measuring_hook import MeasuringHook


@HOOKS.register_module()
class ReconstructionHook(MeasuringHook):
    """Draw the reconstructions of a few masked images during training.

    The visualizer gets the pictures: MMEngine's local backend writes them to
    ``vis_data/vis_image/reconstruction_N.png`` in the folder of the run, and
    TensorBoard and others show them. Images and mask are always the same.

    Args:
        bands (Sequence[int], optional): Bands to show of images of more than
            three channels, see :class:`greenmim.visualization.ColourDisplay`.
            Defaults to None, the first three.
        stretch (bool): See there. Defaults to False.
        num_images (int): Images at most; 0 switches the hook off. Defaults
            to 8.
        **kwargs: See :class:`MeasuringHook`.
    """

    times = 10

    def __init__(self,
                 bands: Optional[Sequence[int]] = None,
                 stretch: bool = False,
                 num_images: int = 8,
                 **kwargs: Any) -> None:
        super().__init__(num_images=num_images, **kwargs)
        self.bands = bands
        self.stretch = stretch

    def measure(self, runner: Runner, model: Any, step: int) -> None:
        result = _join(
            call_gathered(runner.model,
                          lambda: reconstruct_all(model, self.batches)))
        columns = reconstruction_columns(result, model.data_preprocessor,
                                         self.bands, self.stretch)
        runner.visualizer.add_image(
            'reconstruction',
            draw_sheet(columns, captions_of(result)),
            step=step)


def reconstruct_all(model: Any,
                    batches: Sequence[dict],
                    width: float = 0.5) -> List[Dict[str, Any]]:
    """What ``model.reconstruct`` returns for each batch, on the CPU."""
    results = []
    with evaluating(model):
        for batch in batches:
            data = model.data_preprocessor(batch, training=False)
            plan = read_plan(batch['data_samples'])
            assert plan is not None  # fixed batches have one
            result = model.reconstruct(data['inputs'], plan.layout, width)
            results.append(_to_cpu(result))
    return results


def _to_cpu(result: Any) -> Any:
    """Leave the memory of the device to the training."""
    if isinstance(result, torch.Tensor):
        return result.cpu()
    if isinstance(result, dict):
        return {key: _to_cpu(part) for key, part in result.items()}
    return result


def _join(results: Sequence[Any]) -> Any:
    """One result of several batches."""
    first = results[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(results))
    if isinstance(first, dict):
        return {key: _join([part[key] for part in results]) for key in first}
    return first
