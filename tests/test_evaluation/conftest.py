# Copyright (c) greenmim authors. All rights reserved.
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope='session')
def labelled(tmp_path_factory) -> Path:
    """Class folders of six colours, six noisy images of 64x64 pixels each."""
    root = tmp_path_factory.mktemp('labelled')
    rng = np.random.default_rng(0)
    colours = rng.integers(50, 206, (6, 3))
    for part, number in ('train', 4), ('val', 2):
        for label, colour in enumerate(colours):
            folder = root / part / f'class{label}'
            folder.mkdir(parents=True)
            for i in range(number):
                noise = rng.normal(colour, 20, (64, 64, 3))
                Image.fromarray(noise.clip(0, 255).astype('uint8')).save(
                    folder / f'{i}.png')
    return root
