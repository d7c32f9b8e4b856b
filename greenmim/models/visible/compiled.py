# Copyright (c) greenmim authors. All rights reserved.
from typing import Any, Callable

import torch


class Compiled:
    """A function that is compiled where that is asked for.

    Code is compiled for every shape anew. Copies, also pickled ones, compile
    their own: compiled functions themselves cannot be pickled.

    Args:
        function (Callable): A function of a module, not of a closure.
        enabled (bool): Whether it is compiled.
    """

    def __init__(self, function: Callable, enabled: bool) -> None:
        self.function = function
        self.enabled = enabled
        self._run = function
        if enabled:
            self._run = torch.compile(function, dynamic=False)

    def __reduce__(self) -> tuple:
        return Compiled, (self.function, self.enabled)

    def __call__(self, *args: Any) -> Any:
        return self._run(*args)
