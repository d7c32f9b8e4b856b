# Copyright (c) greenmim authors. All rights reserved.
from pathlib import Path
from typing import Any, Dict, List, Optional

from mmengine.dist import is_main_process
from mmengine.runner import Runner
from torch import Tensor

from greenmim.evaluation import (effective_rank, held_out_loss, judge,
                                 relative_spread)
from greenmim.registry import HOOKS
from ..checkpoints import checkpoint_hook_of
from ..fully_sharded import call_gathered
from .measuring_hook import MeasuringHook


@HOOKS.register_module()
class LearningHook(MeasuringHook):
    """Judge by loss and features on fixed images whether the model learns.

    With fixed crops and masks and without drop path, the loss of a few dozen
    images separates progress from noise. A log line says whether the run is
    still improving, flat or collapsing, and why, by the rules of
    :func:`greenmim.evaluation.judge`, and whether the images were held out of
    training.

    These are measured before training, at intervals and at the end, and
    written to the visualizer and the message hub (so that a resumed run has
    them):

    - ``learning/loss``: the loss of these images;
    - ``learning/explained``: the share of it, in per cent, that the model
      saves in comparison with a prediction that knows nothing of the image;
      of the variance of the target, where the loss is a squared error. See
      :func:`greenmim.evaluation.held_out_loss`;
    - ``learning/rank``: the effective rank of the encoder's features of the
      masked images, averaged over each image, see
      :func:`greenmim.evaluation.effective_rank`;
    - ``learning/spread``: how much these features differ, see
      :func:`greenmim.evaluation.relative_spread`;
    - ``learning/change``: by how much they changed since the previous
      measurement, relative to their norm.

    The weights of the lowest loss, measured while the verdict is not
    *collapsing*, are kept as ``best_heldout_iter_N.pth``, without the state
    of the optimizer; as ``best_training_iter_N.pth`` if the images are
    trained on.

    Args:
        patience (int): Measurements without progress after which a run is
            flat. Defaults to 5.
        min_gain (float): Relative decrease of the loss that counts as
            progress. Defaults to 0.001.
        save_best (bool): Whether to keep the best weights. Defaults to True.
        **kwargs: See :class:`MeasuringHook`.

    Raises:
        ValueError: If an argument is out of range, or ``save_best`` finds no
            :class:`SafeCheckpointHook` to save with.
    """

    def __init__(self,
                 patience: int = 5,
                 min_gain: float = 1e-3,
                 save_best: bool = True,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if patience < 1 or min_gain < 0 or self.num_images == 1:
            raise ValueError(
                'expected patience >= 1, min_gain >= 0 and num_images of 0 '
                f'or >= 2, got {patience}, {min_gain} and {self.num_images}')
        self.patience = patience
        self.min_gain = min_gain
        self.save_best = save_best
        self._features: Optional[Tensor] = None

    def before_train(self, runner: Runner) -> None:
        if self.save_best and checkpoint_hook_of(runner) is None:
            raise ValueError(
                'expected a SafeCheckpointHook, which saves the best weights, '
                'got a run without one; set default_hooks.checkpoint.type='
                'greenmim.SafeCheckpointHook, or save_best=False of '
                'LearningHook')
        super().before_train(runner)
        if self.batches and not self.is_held_out:
            runner.logger.info(
                'Learning is judged by images that are trained on: the data '
                'set holds out none, of fewer than 100 images, or without '
                "held_out='auto'.")

    def measure(self, runner: Runner, model: Any, step: int) -> None:
        loss, features, ignorant = call_gathered(
            runner.model, lambda: held_out_loss(model, self.batches))
        explained = None
        if ignorant is not None:
            explained = 100 * (1 - loss / ignorant) if ignorant else 0.
        figures = dict(
            loss=loss,
            rank=effective_rank(features),
            spread=relative_spread(features))
        if explained is not None:
            figures['explained'] = explained
        if self._features is not None:
            change = (features - self._features).norm() / features.norm()
            figures['change'] = float(change)
        self._features = features

        history = self._record(runner, figures)
        verdict = judge(
            **history, patience=self.patience, min_gain=self.min_gain)
        hub = runner.message_hub
        hub.update_info('verdict', verdict.word)
        hub.update_info('verdict_images',
                        f'{len(features)} {self.split} images')
        share = ''
        if explained is not None:
            share = f' ({explained:.1f} % explained)'
        runner.logger.info(
            f'Learning after {step} iterations: {verdict.word} '
            f'({verdict.reason}). {self.split.capitalize()} loss {loss:.4f}'
            f'{share}, effective rank {figures["rank"]:.1f} of '
            f'{len(features) - 1} at most.')
        runner.visualizer.add_scalars(
            {
                f'learning/{name}': value
                for name, value in figures.items()
            },
            step=step)
        if (self.save_best and step and loss <= min(history['losses'])
                and verdict.word != 'collapsing'):
            self._save(runner, step)

    def _record(self, runner: Runner,
                figures: Dict[str, float]) -> Dict[str, List[float]]:
        """Add figures to the history of the run, and return the history."""
        history = {}
        for name, plural in (('loss', 'losses'), ('rank', 'ranks'),
                             ('spread', 'spreads'), ('change', 'changes'),
                             ('explained', 'shares')):
            key = f'learning/{name}'
            if name in figures:
                runner.message_hub.update_scalar(key, figures[name])
            buffer = runner.message_hub.log_scalars.get(key)
            history[plural] = [] if buffer is None else buffer.data[0].tolist()
        del history['shares']
        return history

    def _save(self, runner: Runner, step: int) -> None:
        """Save the weights, then remove the best ones of this run before."""
        kind = 'heldout' if self.is_held_out else 'training'
        name = f'best_{kind}_iter_{step}.pth'
        hook = checkpoint_hook_of(runner)
        assert hook is not None
        hook.save(runner, name, weights_only=True)
        file = Path(hook.out_dir or runner.work_dir, name)
        before = runner.message_hub.runtime_info.get('best_heldout')
        runner.message_hub.update_info('best_heldout', str(file))
        if before and is_main_process() and Path(before) != file and Path(
                before).resolve().parent == file.resolve().parent:
            Path(before).unlink(missing_ok=True)
