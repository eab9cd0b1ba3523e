"""How kernels are started: by Triton the first time, directly after; with one that notes it."""

import torch

from regrow.execution.block.start import Launch


class Kernel:
    """As Triton's are used: kernel[grid](...) compiles, launches, returns what it compiled."""

    def __init__(self, interpreted=False):
        self.interpreted, self.by_triton, self.directly = interpreted, [], []

    def __getitem__(self, grid):
        def first(*given, **how):
            self.by_triton.append((grid, given, how))
            return None if self.interpreted else Compiled(self)

        return first


class Compiled:
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return lambda *given: self.kernel.directly.append((grid, given))


def aligned(n, shift=0):
    """Numbers that begin on 16 bytes, or some numbers after that."""
    memory = torch.zeros(n + 8)
    begin = -memory.data_ptr() % 16 // 4
    return memory[begin + shift : begin + shift + n]


def launch(kernel, parts=((4, 8),)):
    return Launch(kernel, (3, 2, 1), (None, None), parts, (7,), (True, "tf32"), 4, 3)


def test_a_launch_is_compiled_once_and_follows_its_arguments():
    kernel, layout = Kernel(), aligned(16)
    started = launch(kernel)
    pairs = [(aligned(4), aligned(4)) for _ in range(3)]
    for pair in pairs:
        started.start(pair, layout)
    ((grid, given, how),) = kernel.by_triton
    assert grid == (3, 2, 1)
    assert how == {"num_warps": 4, "num_stages": 3}
    assert given[:2] == pairs[0]
    assert torch.equal(given[2], layout[4:12])
    assert given[2].data_ptr() == layout[4:12].data_ptr()
    assert given[3:] == (7, True, "tf32")
    assert kernel.directly == [
        ((3, 2, 1), (*[t.data_ptr() for t in pair], layout.data_ptr() + 16, 7, True, "tf32"))
        for pair in pairs[1:]
    ]


def test_addresses_off_16_bytes_are_left_to_triton_which_compiles_them_apart():
    kernel, layout = Kernel(), aligned(16)
    started = launch(kernel)
    for shifts in ((0, 0), (1, 0), (0, 3), (0, 0)):
        started.start(tuple([aligned(4, shift) for shift in shifts]), layout)
    started.start((aligned(4), aligned(4)), aligned(16, 1))
    assert len(kernel.by_triton) == 4
    assert len(kernel.directly) == 1
    # What was compiled for addresses off 16 bytes is not what others are started with.
    other = launch(kernel)
    other.start((aligned(4, 1), aligned(4)), layout)
    other.start((aligned(4), aligned(4)), layout)
    assert len(kernel.by_triton) == 6


def test_the_interpreter_compiles_nothing_and_is_asked_again():
    kernel = Kernel(interpreted=True)
    started = launch(kernel, ())
    for _ in range(3):
        started.start((aligned(4), aligned(4)), aligned(8))
    assert len(kernel.by_triton) == 3
