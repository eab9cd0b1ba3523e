"""Train neural networks on less: fewer weights, features, samples, pixels.

>>> import torch, regrow
>>> model = torch.nn.Linear(64, 10)
>>> optimizer = torch.optim.AdamW(model.parameters())
>>> sparse = regrow.sparsify(model, optimizer, regrow.RigL(density=0.1), total_steps=1000)

The training loop stays as it was: ``optimizer.step()`` drives the topology.
"""

from importlib.metadata import PackageNotFoundError, version

from regrow.engine.backends import Backend, register
from regrow.engine.dynamic import Dynamic
from regrow.engine.links import CHT, CHTs
from regrow.engine.method import Dense, Method, Static
from regrow.engine.methods import (
    ACDC,
    GMP,
    MEST,
    METHODS,
    SET,
    SETITOP,
    SNFS,
    GraNet,
    RandomWalk,
    RigL,
    RigLITOP,
)
from regrow.engine.oneshot import LTH, OMP, SNIP, GraSP, SynFlow
from regrow.engine.sparsifier import Sparsifier, Update
from regrow.engine.sparsify import sparsify
from regrow.engine.srigl import SRigL
from regrow.engine.structured import DynamicBlock, DynamicNM
from regrow.engine.topkast import TopKAST
from regrow.execution.advise import advise
from regrow.execution.choose import choose
from regrow.execution.convert import convert
from regrow.execution.empty import empty
from regrow.pruning.prune import prune
from regrow.pruning.pruned import Pruned
from regrow.pruning.rules import SparseGPT, Wanda

__all__ = [
    "ACDC",
    "CHT",
    "GMP",
    "LTH",
    "MEST",
    "METHODS",
    "OMP",
    "SET",
    "SETITOP",
    "SNFS",
    "SNIP",
    "CHTs",
    "Dense",
    "Dynamic",
    "DynamicBlock",
    "DynamicNM",
    "GraNet",
    "GraSP",
    "Method",
    "Pruned",
    "RandomWalk",
    "RigL",
    "RigLITOP",
    "SRigL",
    "SparseGPT",
    "Sparsifier",
    "Static",
    "SynFlow",
    "TopKAST",
    "Update",
    "Wanda",
    "advise",
    "empty",
    "prune",
    "sparsify",
]

# The engine cannot import what stands above it.
register("csr", Backend(convert))
register("block", Backend(convert))
register("2:4", Backend(convert, stores=False))
register("auto", Backend(convert, choose, stores=False))

try:
    __version__ = version("regrow")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"
