"""Fuzzes the C kernels through csr layers: results beside plain sums in float64, bad calls refused.

Cases run in a worker process, so that a crash or a hang is a case that went wrong and not the end:
``python -m tests.fuzz.kernels --seed S --budget N``.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import select
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import numpy as np
import torch
from torch import nn

from regrow.execution.csr import dispatch, layout, norm
from regrow.execution.csr.conv import CsrConv1d, CsrConv2d, CsrConv3d
from regrow.execution.csr.index import Index
from regrow.execution.csr.linear import CsrLinear
from tests.fuzz.budget import main

_LIMIT = 300.0  # seconds for a case
_COMMAND = [sys.executable, "-X", "faulthandler", "-W", "ignore", "-m", "tests.fuzz.kernels"]
CONVOLUTIONS = {1: CsrConv1d, 2: CsrConv2d, 3: CsrConv3d}


# ---------------------------------------------------------------------- random tensors


def _numbers(rng, shape, specials=True):
    """Random float32 numbers; some of them zero, infinite or not a number."""
    x = torch.randn(shape)
    if specials and x.numel() and rng.random() < 0.25:
        flat = x.view(-1)
        for special in rng.sample([0.0, -0.0, math.nan, math.inf, -math.inf, 1e-40], 2):
            flat[rng.randrange(len(flat))] = special
    return x


def _laid_out(rng, x, ways=7):
    """The same numbers in other memory: turned, cut out of more, displaced, or lazily negated."""
    way = rng.randrange(ways)
    if x.dim() == 0 or way == 0:
        return x
    if way == 1:  # any order of the axes
        order = rng.sample(range(x.dim()), x.dim())
        back = [order.index(axis) for axis in range(x.dim())]
        return x.permute(order).contiguous().permute(back)
    if way == 2:  # every second of more
        axis = rng.randrange(x.dim())
        return torch.stack([x, torch.full_like(x, math.nan)], axis + 1).flatten(axis, axis + 1)[
            (slice(None),) * axis + (slice(None, None, 2),)
        ]
    if way == 3:  # not aligned
        memory = torch.full((x.numel() + 3,), math.nan)
        return memory[3:].view(x.shape).copy_(x)
    if way == 4:  # one number in many places
        axis = rng.randrange(x.dim())
        return x.narrow(axis, 0, 1).expand(x.shape) if x.shape[axis] else x
    if way == 5:
        return torch.complex(torch.zeros_like(x), -x).conj().imag
    return layout.feature_major(x) if x.dim() == 2 else x


def _positions(rng, n):
    """Ascending positions below n: none, all, or any number of them."""
    k = rng.choice([0, n, rng.randint(0, n), rng.randint(0, min(n, 5))])
    return torch.tensor(
        sorted(rng.sample(range(n), k)), dtype=rng.choice([torch.int32, torch.int64])
    )


def _near(actual, expected, terms, what):
    """Require results close beside what was added up, and the same where they are not finite."""
    actual, expected = actual.detach().double().numpy(), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: {actual.shape} and not {expected.shape}"
    finite = np.isfinite(expected)
    same = np.where(np.isnan(expected), np.isnan(actual), actual == expected)
    close = np.abs(actual - expected) <= 1e-4 * (1e-3 + np.asarray(terms))
    assert np.where(finite, close, same).all(), f"{what} is wrong"


# ---------------------------------------------------------------------- plain sums in float64


def _sums(rows, reads, values, x, grad, shape):
    """Output, and gradients of x and values: for each nonzero, what it reads of x goes to a row."""
    out, for_x = np.zeros(shape), np.zeros(x.shape)
    for_values = np.zeros(len(values))
    for k, (row, read) in enumerate(zip(rows, reads, strict=True)):
        out[:, row] += values[k] * x[read]
        for_x[read] += values[k] * grad[:, row]
        for_values[k] = (x[read] * grad[:, row]).sum()
    return out, for_x, for_values


def _require_right(layer, x, grad, rows, reads, pads=()):
    """Compare a layer's output and gradients for x with those sums; pads are zeros around x."""
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(grad)
    wide = np.pad(x.detach().double().numpy(), [(0, 0), (0, 0), *pads] if pads else 0)
    inner = (..., *(slice(low, wide.shape[2 + i] - high) for i, (low, high) in enumerate(pads)))
    values, bias = layer.weight.detach().double().numpy(), layer.bias
    down = grad.double().numpy()
    if layer.activation:  # near zero rounding decides what passes: the layer's own decision counts
        down = np.where((y.detach() > 0).numpy(), down, 0)
    made = _sums(rows, reads, values, wide, down, y.shape)
    sizes = _sums(rows, reads, abs(values), abs(wide), abs(down), y.shape)
    out, size = made[0], sizes[0]
    if bias is not None:
        added = bias.detach().double().numpy().reshape(-1, *[1] * (y.dim() - 2))
        out, size = out + added, size + abs(added)
        others = tuple(axis for axis in range(y.dim()) if axis != 1)
        _near(bias.grad, down.sum(others), abs(down).sum(others), "the bias's gradient")
    if layer.activation:
        out = np.where(out > 0, out, np.where(np.isnan(out), out, 0))
    _near(y, out, size, "the output")
    _near(x.grad, made[1][inner], sizes[1][inner], "the input's gradient")
    _near(layer.weight.grad, made[2], sizes[2], "the weight's gradient")


# ---------------------------------------------------------------------- kinds of case


def _linear_layer(rng):
    rows, columns = rng.choice([0, 1, rng.randint(1, 40)]), rng.choice([1, rng.randint(1, 300)])
    at = _positions(rng, rows * columns)
    bias = rng.choice([None, torch.randn(rows)])
    layer = CsrLinear(
        columns, rows, at, torch.randn(len(at)), bias, activation=rng.choice([None, "relu"])
    )
    return layer, at.long()


def linear(rng):
    layer, at = _linear_layer(rng)
    batch = rng.choice([0, 1, rng.randint(2, 300)])
    if rng.random() < 0.3:
        layer.weight = nn.Parameter(_laid_out(rng, layer.weight.detach()))
    x = _laid_out(rng, _numbers(rng, (batch, layer.in_features)))
    grad = _laid_out(rng, _numbers(rng, (batch, layer.out_features)))
    columns = layer.in_features
    reads = [(slice(None), int(p) % columns) for p in at]
    _require_right(layer, x, grad, [int(p) // columns for p in at], reads)


def _convolution(rng):
    axes = rng.choice([1, 2, 2, 3])
    groups = rng.choice([1, 1, 2, 3])
    inputs, outputs = groups * rng.randint(1, 4), groups * rng.randint(1, 5)
    kernel, stride, dilation = (
        tuple(rng.randint(1, most) for _ in range(axes)) for most in (3, 3, 2)
    )
    if rng.random() < 0.3:  # of whole kernels, mostly such as are computed kernel by kernel
        kernel, dilation = ((1,) * (axes - 2) + (3, 3))[-axes:], rng.choice([dilation, (1,) * axes])
        stride = stride[: axes - 2] + rng.choice([(1, 1), (2, 2), (1, 2)])[-axes:]
        whole = _positions(rng, outputs * (inputs // groups)).long()
        taps = torch.arange(math.prod(kernel))
        at = (whole[:, None] * len(taps) + taps).flatten().to(whole.dtype)
    else:
        at = _positions(rng, outputs * (inputs // groups) * math.prod(kernel))
    padding = rng.choice([0, "valid", tuple(rng.randint(0, 2) for _ in range(axes))])
    if set(stride) == {1} and rng.random() < 0.3:
        padding = "same"
    layer = CONVOLUTIONS[axes](
        inputs,
        outputs,
        kernel,
        at,
        torch.randn(len(at)),
        rng.choice([None, torch.randn(outputs)]),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        activation=rng.choice([None, "relu"]),
    )
    most = {1: 60, 2: 12, 3: 6}[axes]
    size = tuple(
        d * (k - 1) + 1 + rng.randint(0, most) for d, k in zip(dilation, kernel, strict=True)
    )
    return layer, at.long(), size


def convolution(rng):
    layer, at, size = _convolution(rng)
    batch = rng.choice([0, 1, rng.randint(2, 40)])
    sparse = dispatch.in_use() != "torch"  # which goes through a dense weight: 0 x inf is nan
    x = _laid_out(rng, _numbers(rng, (batch, layer.in_channels, *size), sparse))
    grad = _laid_out(rng, _numbers(rng, layer(x).shape, sparse))
    per_group, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    rows, reads = [], []
    for p in at.tolist():
        row, channel, *tap = np.unravel_index(
            p, (layer.out_channels, per_group, *layer.kernel_size)
        )
        ends = zip(tap, layer.dilation, layer.stride, grad.shape[2:], strict=True)
        places = [slice(t * d, t * d + s * (n - 1) + 1, s) for t, d, s, n in ends]
        rows.append(int(row))
        reads.append((slice(None), int(row) // outputs * per_group + int(channel), *places))
    _require_right(layer, x, grad, rows, reads, layer.pads)


def normalization(rng):
    axes = rng.choice([1, 2, 3])
    channels = rng.randint(1, 6)
    kind = (norm.BatchNorm1d, norm.BatchNorm2d, norm.BatchNorm3d)[axes - 1]
    dense = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1](
        channels,
        affine=rng.random() < 0.8,
        track_running_stats=rng.random() < 0.8,
        momentum=rng.choice([None, 0.1]),
    )
    ours = kind(channels, dense.eps, dense.momentum, dense.affine, dense.track_running_stats)
    ours.load_state_dict(dense.state_dict())
    innermost = rng.random() < 0.7
    if innermost and dispatch.in_use() != "torch":  # torch's own errs with most of these
        for held in [*ours.parameters(), *ours.buffers()]:
            held.data = _laid_out(rng, held.detach().clone(), 4) if held.dim() else held
    dense.load_state_dict(ours.state_dict())
    size = tuple(rng.randint(1, 6) for _ in range(axes))
    x = torch.randn(rng.randint(2, 40), channels, *size)
    x = layout.batch_last(x) if innermost else _laid_out(rng, x)
    grad = _laid_out(rng, torch.randn(x.shape))
    for training in (True, False):
        a, b = (x.detach().clone(memory_format=torch.preserve_format) for _ in range(2))
        a, b = a.requires_grad_(), b.requires_grad_()
        y, expected = ours.train(training)(a), dense.train(training)(b)
        y.backward(grad)
        expected.backward(grad)
        torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(ours.state_dict(), dense.state_dict(), rtol=1e-3, atol=1e-4)


def topology(rng):
    kernels = dispatch.kernels()
    rows, columns = rng.choice([1, rng.randint(1, 120)]), rng.choice([1, rng.randint(1, 90)])
    a, b = (_positions(rng, rows * columns) for _ in range(2))
    if rng.random() < 0.2:  # sizes near the largest; nothing is made of their length
        rows, columns = rng.choice([(1, 2**31 - 1), (70000, 2**31 - 1), (1000, 2**21)])
        at = torch.tensor(sorted({rng.randrange(rows * columns) for _ in range(9)}))
        index = Index(at, (rows, columns))
        assert index.positions.tolist() == at.tolist()
        assert index.pointers[-1] == len(at)
        return
    index = Index(a, (rows, columns))
    assert index.positions.tolist() == a.tolist()
    order = index.transposed
    expected = sorted((p % columns, p // columns, k) for k, p in enumerate(a.tolist()))
    assert list(zip(order.index.tolist(), order.order.tolist(), strict=True)) == [
        (row, k) for _, row, k in expected
    ]
    a, b = a.int(), b.int()
    source, shared = kernels.locate(a, b)
    where = {p: k for k, p in enumerate(a.tolist())}
    assert source.tolist() == [where.get(p, -1) for p in b.tolist()]
    assert shared == len(where.keys() & set(b.tolist()))
    assert kernels.merge(a, b).tolist() == sorted(a.tolist() + b.tolist())
    bits = torch.zeros(-(-rows * columns // 8), dtype=torch.uint8)
    kernels.mark(bits, a)
    marked = np.unpackbits(bits.numpy(), bitorder="little")
    assert np.flatnonzero(marked).tolist() == a.tolist()
    _above(rng, kernels, rows, columns)


def _above(rng, kernels, rows, columns):
    batch = rng.choice([1, rng.randint(2, 60)])
    y, x = (layout.feature_major(_numbers(rng, (batch, n), batch < 9)) for n in (rows, columns))
    y, x = layout.one_stride(y), layout.one_stride(x)
    product = (y.double().t() @ x.double()).numpy().reshape(-1)
    size = (y.double().abs().t() @ x.double().abs()).numpy().reshape(-1)
    bound, capacity = abs(rng.gauss(0, 1)), rng.choice([0, 3, rows * columns])
    with np.errstate(invalid="ignore"):
        unsure = np.abs(np.abs(product) - bound) <= 1e-4 * (1e-3 + size)
        beyond = ~(np.abs(product) <= bound)
    count, places, _ = kernels.above(y, x, bound, capacity)
    assert abs(count - beyond.sum()) <= unsure.sum(), f"above: {count} and not {beyond.sum()}"
    assert len(places) == (count if count <= capacity else 0)
    wrong = np.setxor1d(places.numpy(), np.flatnonzero(beyond)) if count <= capacity else []
    assert all(unsure[p] for p in wrong), "above: which"


def at_once(rng):
    """One layer, used by several Python threads with inputs of several sizes."""
    if rng.random() < 0.5:
        rows = rng.randint(200, 400)
        at = torch.arange(0, rows * 3000, rng.randint(2, 9))
        layer, sizes = (
            CsrLinear(3000, rows, at, torch.randn(len(at))),
            [(n, 3000) for n in (1, 9, 40)],
        )
    else:
        layer, _, size = _convolution(rng)
        sizes = [(n, layer.in_channels, *(s + n for s in size)) for n in (1, 2, 3)]
    inputs = [torch.randn(size) for size in sizes]
    expected = [layer(x).detach() for x in inputs]
    layer.set_topology_(layer.index_of(layer.positions))  # what is made when first used goes
    errors = []

    def call(x, y):
        try:
            for _ in range(4):
                torch.testing.assert_close(layer(x), y)
        except Exception:
            errors.append(traceback.format_exc())

    threads = [
        threading.Thread(target=call, args=pair) for pair in zip(inputs, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


def bad_call(rng):
    """A call that must be refused by the name of what is wrong, and change nothing."""
    layer, at = _linear_layer(rng)
    n, features = len(at), layer.in_features
    good = torch.randn(3, features)
    before = layer(good)
    conv, _, size = _convolution(rng)
    images = torch.randn(2, conv.in_channels, *size)
    bad_inputs = [
        *(good.to(kind) for kind in (torch.float64, torch.float16, torch.int32, torch.cfloat)),
        *(good.to("meta"), good.to_sparse(), good.to_sparse_csr(), good.to_mkldnn()),
        *(
            good > 0,
            good[:, :-1],
            torch.zeros(()),
            torch.zeros(3, features + 1),
            good.tolist(),
            None,
        ),
    ]
    end = layer.out_features * features
    mixed = torch.tensor([end, end - 1])
    bad_positions = [
        *(torch.tensor([end]), torch.tensor([-1]), mixed, torch.tensor([0, 0])),
        *(torch.tensor([0.0]), torch.tensor([math.nan]), torch.tensor([True]), [0], None),
        *(torch.tensor([0], device="meta"), torch.tensor([2**63 - 1]), torch.tensor([-(2**63)])),
    ]
    bad_values = [torch.randn(n + 1), torch.randn(n).double(), torch.randn(n, device="meta")]
    weird = (*images.shape[:2], *(0 for _ in size))
    shape, bias = (layer.out_features, features), torch.randn(layer.out_features + 1)
    calls = {
        "input": [lambda x=x: layer(x) for x in bad_inputs]
        + [
            lambda: conv(images[:, :0]),
            lambda: conv(torch.zeros(weird)),
            lambda: conv(images[0, 0]),
        ]
        + [lambda: conv(images.double()), lambda: conv(images.to_sparse())],
        "positions": [lambda p=p: layer.set_topology_(p) for p in bad_positions]
        + [lambda: layer.set_topology_(Index(torch.tensor([0]), (1, features + 1)))],
        "weight": [lambda v=v: CsrLinear(features, shape[0], at, v) for v in bad_values],
        "bias": [lambda: CsrLinear(features, shape[0], at, torch.randn(n), bias)],
        "shape": [lambda: Index(at, (-1, -end)), lambda: Index(at, (2**31, 1))],
    }
    name, call = rng.choice([(name, call) for name, some in calls.items() for call in some])
    try:
        call()
    except (TypeError, ValueError) as error:
        assert name in str(error), f"the message does not name {name}: {error}"
    else:
        raise AssertionError(f"a bad {name} was accepted")
    assert torch.equal(layer.positions.long(), at)
    torch.testing.assert_close(layer(good), before)


KINDS = [linear, linear, convolution, convolution, normalization, topology, at_once, bad_call]


# ---------------------------------------------------------------------- the worker


def _one(seed: int) -> str:
    """Run one case of this seed; return its kind."""
    rng = random.Random(seed)
    torch.manual_seed(rng.getrandbits(32))
    torch.set_num_threads(rng.randint(1, 3))
    name = rng.choice(dispatch.available())
    dispatch.use(name)
    kind = rng.choice(KINDS)
    kind(rng)
    return f"{kind.__name__} ({name})".replace("_", " ")


def _serve() -> None:
    """Run the case of every seed that comes in, and answer in one line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = _one(int(line))
        except Exception:
            answer = "wrong " + traceback.format_exc()
        print(json.dumps(answer), file=answers, flush=True)


class _Worker:
    """A process that runs cases; begun when first asked, and again when it has died."""

    process: subprocess.Popen | None = None

    def ask(self, seed: int) -> str:
        if self.process is None:
            self.process = subprocess.Popen(
                [*_COMMAND, "serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
            )
        self.process.stdin.write(f"{seed}\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], _LIMIT)[0]:
            self.end()
            raise AssertionError(f"the worker had not ended after {_LIMIT:g} s")
        answer = self.process.stdout.readline()
        if not answer:
            raise AssertionError(f"the worker died: exit {self.end()}")
        return answer

    def end(self) -> int | None:
        """End the process, should it still live; return its exit status."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


WORKER = _Worker()


def case(rng: random.Random) -> str:
    answer = json.loads(WORKER.ask(rng.getrandbits(60)))
    assert not answer.startswith("wrong "), answer
    return answer


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        _serve()
    else:
        main("kernels", case, budget=2000)
