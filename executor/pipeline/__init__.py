"""This rank's stages and the order of passes that drives them, on PyTorch's pipelining runtime.

``stage`` and ``runtime`` are the files that know the private parts of that runtime. May import ``executor``,
``costmodel``, torch.
"""

from executor.pipeline.pipeline import LossFunction, Pipeline
from executor.pipeline.shapes import StageShapes

__all__ = ["LossFunction", "Pipeline", "StageShapes"]
