# Copyright (c) greenmim authors. All rights reserved.
"""The speeds that forecasts have measured on this machine.

They are kept in ``$XDG_CACHE_HOME/greenmim/forecasts.json``, by default in
``~/.cache``, where ``greenmim recipes`` finds them.
"""
import json
import os
import platform
from pathlib import Path
from typing import Dict, Optional

import torch
from mmengine.config import Config

from .results import environment, write_json


def record_speed(cfg: Config, images_per_second: float) -> None:
    """Keep the speed of a training on this machine."""
    speeds = dict(_read(), **{_subject(cfg): images_per_second})
    try:
        write_json(speeds, _file())
    except OSError as error:  # a home that cannot be written to
        print(f'the speed is not kept for `greenmim recipes`: {error}')


def recorded_speed(cfg: Config) -> Optional[float]:
    """Images per second of the last forecast; None if there was none."""
    return _read().get(_subject(cfg))


def _file() -> Path:
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(cache).expanduser() / 'greenmim' / 'forecasts.json'


def _read() -> Dict[str, float]:
    try:
        return json.loads(_file().read_text('utf-8'))
    except (OSError, ValueError):
        return {}


def _subject(cfg: Config) -> str:
    """What decides on the speed: machine, model and size of the images."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    sizes = [
        transform.get('scale') or transform.get('crop_size')
        for transform in cfg.train_dataloader.dataset.pipeline
        if 'Crop' in transform['type']
    ]
    machine = platform.node(), environment(device)['hardware']
    return json.dumps([machine, cfg.model.to_dict(), sizes], sort_keys=True)
