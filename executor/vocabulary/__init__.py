"""The vocabulary split over the pipeline ranks: embedding, output layer and loss as passes of their own.

May import ``executor.clock``, ``executor.buckets``, ``costmodel`` and torch.
"""

from executor.vocabulary.part import VocabularyPart
from executor.vocabulary.passes import VocabularyPasses

__all__ = ["VocabularyPart", "VocabularyPasses"]
