# Copyright (c) greenmim authors. All rights reserved.
"""A checkpoint of an earlier version resumes and loads."""
import json
import shutil
import uuid

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from tests.conftest import CHECKOUT
from tests.micro import save_images

RUN = CHECKOUT / 'tests' / 'data' / 'resumption'


@pytest.fixture
def runner(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / 'images', 6, (80, 80))
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
    history = json.loads((RUN / 'history.json').read_text('utf-8'))
    for name, expected in history.items():
        found = scalars[name].view(torch.float64)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=name)


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
