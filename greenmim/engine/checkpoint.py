# Copyright (c) greenmim authors. All rights reserved.
import os.path as osp
import pickle
from typing import Dict

import torch
from torch import Tensor


def read_state_dict(filename: str) -> Dict[str, Tensor]:
    """Read the weights of a checkpoint; no code in the file is run.

    Args:
        filename (str): A checkpoint of MMEngine, or a bare state dict.

    Returns:
        dict[str, Tensor]: The weights, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, needs more than safe loading, or
            holds something other than weights.
    """
    if not osp.isfile(filename):
        raise FileNotFoundError(
            f'expected a checkpoint, but there is no file {filename!r}')
    try:
        content = torch.load(filename, map_location='cpu', weights_only=True)
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f'cannot read {filename}: expected a complete checkpoint of '
            'tensors and plain types, but it is damaged, is no checkpoint, '
            'or holds objects that could run code') from error
    if isinstance(content, dict):
        content = content.get('state_dict', content)
    if not isinstance(content, dict) or not content or not all(
            isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f'expected named tensors in {filename}, at the top '
                         "or under 'state_dict', but found something else")
    return content
