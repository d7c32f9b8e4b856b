# Copyright (c) greenmim authors. All rights reserved.
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor

from greenmim._mmengine import is_resuming, model_of
from greenmim.datasets import fixed_batches
from greenmim.models.masking.data_samples import read_plan, single_view
from greenmim.models.target_generators import best_width
from greenmim.registry import HOOKS
from greenmim.visualization import (draw_learning, learning_columns,
                                    learning_sentence, squared_errors)
from ..fully_sharded import call_gathered
from .measuring_hook import MeasuringHook
from .reconstruction_hook import reconstruct_all

SHARES = (0, 25, 50, 100)  # per cent of the run
CHOSEN_ON = 32  # training images for the width of the interpolation
FILE = 'learning.png'


@HOOKS.register_module()
class LearningPictureHook(MeasuringHook):
    """Draw how the predictions of held-out images improve during a run.

    ``learning.png`` in the folder of the run shows images that training never
    sees, each with a mask of its own: the mean of the visible pixels and a
    smooth interpolation of them (Gaussian weights, of the width that errs
    least on training images), then what the model predicts before training
    and after 25, 50 and 100 % of it. A sentence gives the three squared
    errors of masked pixels; the report of the run has it, too. Masked pixels
    affect nothing but the first column and the errors.

    Without held-out images (see :class:`MeasuringHook`), or if the target is
    no image, nothing is drawn.

    Args:
        num_shown (int): Images in the picture at most. Defaults to 6.
        bands (Sequence[int], optional): Bands to show of images of more than
            three channels, see :class:`greenmim.visualization.ColourDisplay`.
            Defaults to None, the first three.
        stretch (bool): See there. Defaults to False.
        **kwargs: ``num_images``, ``batch_size`` and ``data_root`` of
            :class:`MeasuringHook`.
    """

    def __init__(self,
                 num_shown: int = 6,
                 bands: Optional[Sequence[int]] = None,
                 stretch: bool = False,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_shown = num_shown
        self.bands = bands
        self.stretch = stretch
        self.width: Optional[float] = None
        self.predictions: Dict[str, Tensor] = {}
        self.errors: Dict[str, float] = {}

    def make_batches(self, runner: Runner, dataset: Any,
                     number: int) -> List[dict]:
        """Images with a mask each; none where there is nothing to draw."""
        if not self.is_held_out:
            return []
        model = model_of(runner)
        target = getattr(getattr(model, 'head', None), 'target', None)
        if not getattr(target, 'draws_images', False):
            return []  # histograms or another model's features, say
        training = []
        for batch in self._masked(runner, runner.train_dataloader.dataset,
                                  CHOSEN_ON):
            images = model.data_preprocessor(batch, training=False)['inputs']
            plan = read_plan(batch['data_samples'])
            assert plan is not None  # fixed batches have one
            training.append((single_view(images), plan.layout))
        self.width = best_width(training, model.unit_size)
        return self._masked(runner, dataset, number)

    def _masked(self, runner: Runner, dataset: Any, number: int) -> List[dict]:
        return fixed_batches(
            dataset,
            runner.train_dataloader.collate_fn,
            model_of(runner).mask_planner,
            number,
            self.batch_size,
            mask_scope='image')

    def is_due(self, runner: Runner) -> bool:
        return runner.iter + 1 in _steps(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the predictions so far, for the picture of a resumed run."""
        if 'optimizer' in checkpoint and self.predictions:
            checkpoint['learning_picture'] = dict(
                predictions=self.predictions, errors=self.errors)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if is_resuming(runner):
            before = checkpoint.get('learning_picture', {})
            self.predictions = dict(before.get('predictions', {}))
            self.errors = dict(before.get('errors', {}))

    def measure(self, runner: Runner, model: Any, step: int) -> None:
        if not self.batches:
            return
        assert self.width is not None
        width = self.width
        results = call_gathered(
            runner.model, lambda: reconstruct_all(model, self.batches, width))
        error, naive = squared_errors(results)
        before, prediction = learning_columns(results, model.data_preprocessor,
                                              self.num_shown, self.bands,
                                              self.stretch)
        name = f'{_steps(runner)[step]} %'
        self.predictions[name] = prediction
        self.errors[name] = error
        number = sum(len(batch['inputs']) for batch in self.batches)
        pixels = width * model.unit_size
        sentence = learning_sentence(f'{number} held-out images', error, naive,
                                     pixels)
        runner.logger.info(f'After {step} iterations: {sentence}')
        runner.message_hub.update_info(
            'reconstruction',
            dict(
                images=number,
                model=dict(self.errors),
                **naive,
                width_px=pixels,
                sentence=sentence))
        sheet = draw_learning(before, self.predictions, [sentence])
        if is_main_process():
            Image.fromarray(sheet).save(Path(runner.work_dir, FILE))
        runner.visualizer.add_image('learning', np.array(sheet), step=step)


def _steps(runner: Runner) -> Dict[int, int]:
    """The iterations after which to draw, and their shares in per cent."""
    return {round(runner.max_iters * share / 100): share for share in SHARES}
