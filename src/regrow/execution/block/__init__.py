"""Block-sparse linear layers: active blocks are stored and computed, nothing else."""

from regrow.execution.block.dense import gather_blocks, scatter_blocks
from regrow.execution.block.index import BlockIndex
from regrow.execution.block.linear import BlockLinear

__all__ = ["BlockIndex", "BlockLinear", "gather_blocks", "scatter_blocks"]
