"""What sparsity saves and what it does. Operations, bytes and seconds are different things.

FLOPs and bytes here are *counted* from shapes and masks: what arithmetic on the nonzeros alone
would take. Whether a run is faster is a matter of execution, and is timed, never counted.
"""

from regrow.measure import flops, memory

__all__ = ["flops", "memory"]
