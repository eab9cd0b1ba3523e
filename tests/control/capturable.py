"""What tests of CUDA graphs ask on a CPU: whether the host waits, and where tensors lie."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Reading a value, or making a tensor whose size is a value, makes the host wait.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item", "is_nonzero")


class Refuse(TorchDispatchMode):
    """Raises where a device would be asked for a value."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::").split(".")[0]
        if name in WAITING or name.startswith("unique"):
            raise AssertionError(f"{name} waits for the device")
        return function(*args, **(kwargs or {}))


def places(thing, path="", seen=None):
    """Return where every tensor of an object lies, those of its parts too."""
    seen, found = seen if seen is not None else set(), {}
    if id(thing) in seen:
        return found
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return {path: thing.data_ptr()}
    if isinstance(thing, torch.nn.Module):
        parts = thing.named_parameters()
    elif isinstance(thing, dict):
        parts = thing.items()
    elif isinstance(thing, list | tuple):
        parts = enumerate(thing)
    elif type(thing).__module__.startswith("regrow.control"):
        parts = vars(thing).items()
    else:
        return found
    for name, part in list(parts):
        found |= places(part, f"{path}.{name}", seen)
    return found
