"""The names of ``import regrow``, which brings them in when the first of them is asked for."""

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
