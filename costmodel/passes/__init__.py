"""What a schedule's passes take in and give out: the rules that the validator, the simulator and the executor share.

May import ``costmodel.schema`` and the standard library.
"""

from costmodel.passes.rules import Product, Rules

__all__ = ["Product", "Rules"]
