# Copyright (c) greenmim authors. All rights reserved.
import pytest
import torch


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not torch.cuda.is_available():
        pytest.skip('no GPU that PyTorch sees; the tests of this folder need '
                    'one, and see it only if they are run alone')
