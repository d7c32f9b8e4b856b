# Copyright (c) greenmim authors. All rights reserved.
"""What arrives in JSON lines, TensorBoard, Weights & Biases and MLflow.

TensorBoard is read back where it is installed. The other two would start
services; what MMEngine calls of them is recorded, with the check of MLflow's
that a picture has the name of a file. They have been tried as the page on
monitoring says.
"""
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from tests.conftest import CHECKOUT
from tests.micro import scalars_of

CONFIG = (
    CHECKOUT / 'configs' / 'quickstart' /
    'greenmim_swin-micro-w4_1xb32-coslr-600i_photos-128px.py')
STEPS = [2, 4]
LOGGED = {
    'loss', 'lr', 'images_per_second', 'data_share', 'plan_share',
    'compute_share', 'fill_rate'
}
MEASURED = {'learning/loss', 'learning/rank', 'learning/spread'}


def log_image(image, name):
    if Path(name).suffix not in ('.png', '.jpg'):
        raise ValueError(f'unknown file extension: {name}')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Four iterations with all backends; their folder and what was called."""
    folder = tmp_path_factory.mktemp('run')
    wandb, mlflow = MagicMock(), MagicMock()
    mlflow.log_image.side_effect = log_image
    backends = [
        dict(type='LocalVisBackend'),
        dict(type='WandbVisBackend', init_kwargs=dict(mode='offline')),
        dict(type='greenmim.MLflowBackend', exp_name='greenmim')
    ]
    if find_spec('tensorboard'):
        backends.append(dict(type='TensorboardVisBackend'))
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({
        'train_cfg.max_iters': 4,
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'param_scheduler.0.end': 1,
        'param_scheduler.1.begin': 1,
        'default_hooks.logger.interval': 2,
        'visualizer.vis_backends': backends,
        'log_level': 'WARNING',
        'work_dir': str(folder),
        'experiment_name': uuid.uuid4().hex
    })
    cfg.default_hooks.learning.num_images = 2
    cfg.default_hooks.reconstruction = dict(
        type='greenmim.ReconstructionHook', num_images=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'wandb', wandb)
        patch.setitem(sys.modules, 'mlflow', mlflow)
        # The visualizer is one for the process, with these backends.
        patch.setattr(Visualizer, '_instance_dict', {})
        runner = Runner.from_cfg(cfg)
        runner.train()
        runner.visualizer.close()
    return Path(runner.log_dir), wandb, mlflow


def test_json(run):
    rows = scalars_of(run[0])
    assert [row['step'] for row in rows if 'loss' in row] == STEPS
    assert all(LOGGED <= set(row) for row in rows if 'loss' in row)
    assert [row['step'] for row in rows if MEASURED <= set(row)] == [0, 4]
    pictures = (run[0] / 'vis_data' / 'vis_image').glob('*.png')
    assert len(list(pictures)) == 2


def test_weights_and_biases(run):
    _, wandb, _ = run
    rows = [call.args[0] for call in wandb.log.call_args_list]
    assert sum('loss' in row for row in rows) == 2
    assert all(LOGGED <= set(row) for row in rows if 'loss' in row)
    assert sum(MEASURED <= set(row) for row in rows) == 2
    assert sum('reconstruction' in row for row in rows) == 2
    assert wandb.Image.call_args.args[0].shape[2] == 3
    assert wandb.config.update.call_args.args[0]['train_cfg']['max_iters'] == 4


def test_mlflow(run):
    _, _, mlflow = run
    rows = [call.args for call in mlflow.log_metrics.call_args_list]
    assert [step for row, step in rows if 'loss' in row] == STEPS
    assert all(LOGGED <= set(row) for row, _ in rows if 'loss' in row)
    assert sum(MEASURED <= set(row) for row, _ in rows) == 2
    names = [call.args[1] for call in mlflow.log_image.call_args_list]
    assert names == [f'reconstruction_{step}.png' for step in (0, 4)]


def test_tensorboard(run):
    pytest.importorskip('tensorboard')  # MMSelfSup brings it
    from tensorboard.backend.event_processing.event_accumulator import \
        EventAccumulator
    file, = (run[0] / 'vis_data').glob('events*')
    events = EventAccumulator(str(file))
    events.Reload()
    assert LOGGED | MEASURED <= set(events.Tags()['scalars'])
    assert [event.step for event in events.Scalars('loss')] == STEPS
    assert [event.step for event in events.Images('reconstruction')] == [0, 4]
