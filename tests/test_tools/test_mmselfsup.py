# Copyright (c) greenmim authors. All rights reserved.
"""GreenMIM in MMSelfSup's scope, with its own dataset and pipeline."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from tests.micro import SWIN_ARCH

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'mmselfsup' / (
    'greenmim_swin-tiny-w7_8xb256-amp-coslr-200e_in1k-mmselfsup.py')


def test_training(run_tool, make_config, images, tmp_path):
    """The config trains, with a smaller model on fewer and smaller images."""
    # Imported here: MMSelfSup refuses the mmcv of the other environment, in
    # which this file is collected, too.
    mmselfsup = pytest.importorskip('mmselfsup')
    train = Path(mmselfsup.__file__).parent / '.mim' / 'tools' / 'train.py'
    names = [str(path.relative_to(images)) for path in images.rglob('*.png')]
    (tmp_path / 'images.txt').write_text('\n'.join(names))
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.update(arch=SWIN_ARCH, img_size=64)
    cfg.model.neck.update(in_channels=64, embed_dims=32, num_heads=4)
    cfg.train_dataloader.update(
        batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.update(
        ann_file=str(tmp_path / 'images.txt'), data_prefix='')
    cfg.train_dataloader.dataset.pipeline[1].size = 64
    cfg.optim_wrapper.pop('loss_scale', None)
    cfg.train_cfg.max_epochs = 2
    cfg.param_scheduler = []
    cfg.custom_imports = dict(imports=['micro_parts'])
    cfg.custom_hooks = [dict(type='greenmim.RecordLosses')]
    cfg.dump(tmp_path / 'base.py')
    config = make_config(base=tmp_path / 'base.py')
    assert Config.fromfile(config).default_scope == 'mmselfsup'

    run_tool(train, config, '--work-dir', tmp_path / 'D')
    losses = np.loadtxt(tmp_path / 'D' / 'losses_0.txt')[:, 1]
    assert losses.shape == (4, )
    assert np.isfinite(losses).all()
    # MMSelfSup's script resumes, too.
    run_tool(train, config, '--work-dir', tmp_path / 'D', '--resume',
             '--cfg-options', 'train_cfg.max_epochs=4')
    checkpoint = torch.load(tmp_path / 'D' / 'epoch_4.pth', weights_only=True)
    assert checkpoint['meta']['iter'] == 8
