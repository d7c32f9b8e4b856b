# Copyright (c) greenmim authors. All rights reserved.
"""A checkpoint of an earlier version resumes and loads."""
import json
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from tests.conftest import CHECKOUT

RUN = CHECKOUT / 'tests' / 'data' / 'resumption'


def make_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(6):
        pixels = rng.integers(0, 256, (80, 80, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')


@pytest.fixture
def runner(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / 'images')
    shutil.copy(RUN / 'iter_4.pth', tmp_path)
    cfg = Config.fromfile(RUN / 'micro_run.py')
    cfg.update(
        work_dir='run',
        load_from='iter_4.pth',
        resume=request.param,
        experiment_name=uuid.uuid4().hex)
    return Runner.from_cfg(cfg)


@pytest.mark.parametrize('runner', [True], indirect=True)
def test_resumed(runner):
    """Losses, learning rates and measurements equal those of the run."""
    runner.train()
    assert runner.iter == 9
    saved = torch.load('run/iter_9.pth', weights_only=True)
    assert saved['meta']['iter'] == 9
    states = saved['optimizer']['state'].values()
    assert {int(state['step']) for state in states} == {9}
    scalars = saved['message_hub']['log_scalars']
    for name, expected in json.loads((RUN / 'history.json').read_text(
            encoding='utf-8')).items():
        history = scalars[name].view(torch.float64)[0]
        np.testing.assert_allclose(history, expected, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize('runner', [False], indirect=True)
def test_loaded(runner):
    """Every tensor fits; the run starts from the beginning."""
    weights = torch.load('iter_4.pth', weights_only=True)['state_dict']
    runner.model.load_state_dict(weights, strict=True)
    for parameter in runner.model.parameters():
        torch.nn.init.zeros_(parameter)
    runner.call_hook('before_run')
    runner.load_or_resume()
    assert runner.iter == 0
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, weights[name]), name
