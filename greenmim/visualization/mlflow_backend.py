# Copyright (c) greenmim authors. All rights reserved.
from typing import Any

import numpy as np
from mmengine.visualization import MLflowVisBackend

from greenmim.registry import VISBACKENDS


@VISBACKENDS.register_module()
class MLflowBackend(MLflowVisBackend):
    """MMEngine's ``MLflowVisBackend`` that also stores pictures.

    MLflow needs a file name for an image. The parent passes the bare name, so
    that every picture would replace the previous one.
    """

    def add_image(self,
                  name: str,
                  image: np.ndarray,
                  step: int = 0,
                  **kwargs: Any) -> None:
        """Store an RGB picture of shape (H, W, 3) as ``NAME_STEP.png``."""
        self.experiment.log_image(image, f'{name}_{step}.png')
