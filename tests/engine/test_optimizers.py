"""Methods and the optimizers people use: exact counts, zeros, no jumps, the same bits after resume.

Every optimizer drives a few methods that stand for all (random and gradient growth, an update that
replaces the step, falling density, fan-in); every method is driven by a few optimizers that stand
for all (state in 8 bits, low-bit tensors, schedule-free, two phases, slow weights, one moment, none
by element). Their whole product would take minutes and show no other pair of code paths. Last, all
of pytorch_optimizer's come under `SET`.

No jump, in the three steps after an update, where grown weights make their first moves: on one
batch held fixed, the loss may rise above the loss just after the update by at most ``TOLERANCE`` of
it more than it does under torch's AdamW with the same method (what is lost in the update's own step
is what dropping costs, whoever trains); and no grown weight may move ``STRIDE`` times further,
measured by the furthest move of a survivor in the same step, than under AdamW. Grown weights whose
8-bit moments are codes of zero, the fault that this is to find, move 300 to 130,000 times as far as
survivors; the loss alone would miss it where few weights grow. Who cannot keep that is refused by
`sparsify`, or in its first step, and is tested to keep it in the way that the refusal names.
"""

from __future__ import annotations

import functools
import io
import logging
import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow

# Without a GPU they say so, and are not paged; tests/gpu has those that are.
pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")

TOTAL, STOPPED, EVERY = 16, 10, 4
TOLERANCE = 0.10
STRIDE = 3.0
FIRST_MOVES = 3  # steps after an update

AO, BNB = "torchao.optim", "bitsandbytes.optim"
MORE, FREE = "pytorch_optimizer", "schedulefree"


def need(package):
    """The module, or a test skipped for want of it."""
    return pytest.importorskip(package, reason=f"needs the package {package.partition('.')[0]}")


def of(package, name, lr, **options):
    return lambda p: getattr(need(package), name)(p, lr=lr, **options)


def eight_bit(name, lr):
    return of(BNB, name, lr, min_8bit_size=1)  # small weights too


def two_dimensional(make):
    """Of these optimizers, which take matrices only."""
    return lambda p: make([weight for weight in p if weight.ndim == 2])


def around(name, **options):
    """A wrapper of pytorch_optimizer around AdamW."""
    return lambda p: getattr(need(MORE), name)(torch.optim.AdamW(p, lr=0.01), **options)


def sharpness_aware(name="SAM", **options):
    return lambda p: getattr(need(MORE), name)(p, torch.optim.AdamW, lr=0.01, **options)


OPTIMIZERS = {
    "SGD": of("torch.optim", "SGD", 0.1, momentum=0.9),
    "Adam": of("torch.optim", "Adam", 0.01),
    "AdamW": of("torch.optim", "AdamW", 0.01),
    "NAdam": of("torch.optim", "NAdam", 0.01),
    "RAdam": of("torch.optim", "RAdam", 0.01),
    "Adamax": of("torch.optim", "Adamax", 0.01),
    "Adagrad": of("torch.optim", "Adagrad", 0.01),
    "Adadelta": of("torch.optim", "Adadelta", 1.0),
    "RMSprop": of("torch.optim", "RMSprop", 0.002),
    "Rprop": of("torch.optim", "Rprop", 0.001),
    "ASGD": of("torch.optim", "ASGD", 0.1),
    "Adafactor": of("torch.optim", "Adafactor", 0.05),
    "Muon": two_dimensional(of("torch.optim", "Muon", 0.02)),
    "LBFGS": of("torch.optim", "LBFGS", 0.1, max_iter=3),
    "bitsandbytes AdamW8bit": eight_bit("AdamW8bit", 0.003),
    "bitsandbytes Adam8bit": eight_bit("Adam8bit", 0.003),
    "bitsandbytes Lion8bit": eight_bit("Lion8bit", 0.001),
    "bitsandbytes RMSprop8bit": eight_bit("RMSprop8bit", 0.001),
    "bitsandbytes PagedAdamW8bit": eight_bit("PagedAdamW8bit", 0.003),
    "bitsandbytes PagedLion8bit": eight_bit("PagedLion8bit", 0.001),
    "bitsandbytes AdamW, 32 bits": of(BNB, "AdamW", 0.003),
    "torchao AdamW8bit": of(AO, "AdamW8bit", 0.01),
    "torchao AdamW4bit": of(AO, "AdamW4bit", 0.01),
    "torchao AdamWFp8": of(AO, "AdamWFp8", 0.01),
    "AdamWScheduleFree": of(FREE, "AdamWScheduleFree", 0.01),
    "SGDScheduleFree": of(FREE, "SGDScheduleFree", 0.5),
    "RAdamScheduleFree": of(FREE, "RAdamScheduleFree", 0.01),
    "ScheduleFree around AdamW": around("ScheduleFreeWrapper"),
    "SPlus": of(MORE, "SPlus", 0.01),
    "SAM": sharpness_aware(),
    "SAM, adaptive": sharpness_aware(adaptive=True),
    "LookSAM": sharpness_aware("LookSAM"),
    "Lookahead": around("Lookahead", k=3),
    "OrthoGrad": around("OrthoGrad"),
    "TRAC": around("TRAC"),
    "PCGrad": around("PCGrad"),
    "Lion": of(MORE, "Lion", 0.001),
    "AdEMAMix": of(MORE, "AdEMAMix", 0.003),
    "CAME": of(MORE, "CAME", 0.001),
    "Prodigy": of(MORE, "Prodigy", 1.0),
    "Ranger": of(MORE, "Ranger", 0.01, k=3),
    "Shampoo": of(MORE, "Shampoo", 0.01),
    "FTRL": of(MORE, "FTRL", 0.01),
}

# On batches that change, LBFGS's dense loss jumps by itself: curvature is that of another batch. A
# weight of DAdaptAdaGrad is a function of sums: grown, it is at once where they, being kept, say.
UNJUDGED = {"LBFGS", "DAdaptAdaGrad"}

# They stand for all in the table of every method.
SOME = [
    "bitsandbytes AdamW8bit",
    "bitsandbytes Lion8bit",
    "torchao AdamW4bit",
    "AdamWScheduleFree",
    "SAM",
    "Lookahead",
    "Muon",
    "Adafactor",
]

WITHOUT_MOMENTUM = {"bitsandbytes Lion8bit", "AdamWScheduleFree", "Lion", "Adafactor"}

METHODS = {
    "SET": (regrow.SET, {}),
    "RigL": (regrow.RigL, {}),
    "GraNet": (regrow.GraNet, {}),
    "SRigL": (regrow.SRigL, {}),
}

# Without state that grown weights could be given, or with none that may be set to zero alone.
REFUSED = {
    "SOAP": (of(MORE, "SOAP", 0.003), "'exp_avg_sq' of 0.weight, SOAP keeps 'GG'"),
    "Conda": (of(MORE, "Conda", 0.003), "'exp_avg_sq' of 0.weight, Conda keeps 'projector'"),
    "AdaShift": (of(MORE, "AdaShift", 0.003), "'exp_avg_sq' of 0.weight, AdaShift keeps"),
    "bitsandbytes AdEMAMix8bit": (
        eight_bit("AdEMAMix8bit", 0.003),
        "'state2' of 0.weight, AdEMAMix8bit keeps 'state1'",
    ),
    "bitsandbytes AdEMAMix": (
        of(BNB, "AdEMAMix", 0.003),
        "'state2' of 0.weight, AdEMAMix keeps 'state1'",
    ),
    "FlashAdamW": (of(MORE, "FlashAdamW", 0.003), r"'exp_avg::quantized' that FlashAdamW keeps"),
}


# ---------------------------------------------------------------------- one run, watched


def make_model():
    """Of its weights one has 4,096 entries, the fewest that torchao quantises."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 8)
        )


def make_batch(step):
    inputs = torch.randn(32, 12, generator=torch.Generator().manual_seed(step))
    return inputs, inputs[:, :8].argmax(1)


def take_step(model, optimizer, step):
    """One step in the way its kind of optimizer is called."""
    inputs, labels = make_batch(step)

    def evaluate():
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), labels)
        loss.backward()
        return loss

    torch.manual_seed(step)  # what an optimizer draws is not what is tested
    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(evaluate)
        return
    evaluate()
    optimizer.step(*[evaluate] if hasattr(optimizer, "first_step") else [])


@torch.no_grad()
def measure(model):
    inputs, labels = make_batch(10**6)
    return float(functional.cross_entropy(model(inputs), labels))


def begin(make, method):
    model = make_model()
    optimizer = make(model.parameters())
    if hasattr(optimizer, "train"):
        optimizer.train()
    return model, optimizer, regrow.sparsify(model, optimizer, method, total_steps=TOTAL)


def outside(state, masks):
    """Count the weights of a model's state that are not zero outside the masks."""
    return sum(int(state[name][~mask].count_nonzero()) for name, mask in masks.items())


def active(sparse):
    return {name: int(mask.sum()) for name, mask in sparse.masks.items()}


@torch.no_grad()
def furthest(model, before, among):
    """How far the weights that a mask names have moved at most; never zero, to divide by."""
    moves = [(model.get_parameter(name) - before[name])[mask].abs() for name, mask in among.items()]
    return max([1e-12, *(float(move.max()) for move in moves if move.numel())])


@dataclass
class Watched:
    """What a run showed: counts and losses by step, what was saved, what it came to."""

    counts: list = field(default_factory=list)
    losses: list = field(default_factory=list)
    updates: list = field(default_factory=list)
    stride: float = 0.0  # the furthest first move of a grown weight, in furthest moves of survivors
    saved: bytes = b""
    end: dict = field(default_factory=dict)

    @property
    def rise(self):
        """How far the loss rose in the three steps after an update, in proportion."""
        rises = [
            max(self.losses[u + 1 : u + 1 + FIRST_MOVES]) / self.losses[u] - 1
            for u in self.updates
            if u < TOTAL
        ]
        return max([0.0, *rises])


def watch(make, method):
    """Train; weights are checked after steps, what would be saved after updates."""
    seen = Watched()
    model, optimizer, sparse = begin(make, method)
    seen.losses.append(measure(model))
    grown, survivors = {}, {}
    for step in range(1, TOTAL + 1):
        masks, weights = sparse.masks, {n: w.clone() for n, w in model.state_dict().items()}
        take_step(model, optimizer, step)
        assert not outside(model.state_dict(), sparse.masks)
        if sparse.history and sparse.history[-1].step == step:
            grown = {name: mask & ~masks[name] for name, mask in sparse.masks.items()}
            survivors = {name: mask & masks[name] for name, mask in sparse.masks.items()}
        elif sparse.history and step <= sparse.history[-1].step + FIRST_MOVES:
            seen.stride = max(
                seen.stride, furthest(model, weights, grown) / furthest(model, weights, survivors)
            )
        seen.counts.append(active(sparse))
        seen.losses.append(measure(model))
        if step % EVERY == 0:
            sparse._topology.check_state(sparse.state_dict()["layers"])
        if step == STOPPED:
            file = io.BytesIO()
            torch.save([part.state_dict() for part in (model, optimizer, sparse)], file)
            seen.saved = file.getvalue()
    assert sparse.steps == TOTAL
    seen.updates = [update.step for update in sparse.history]
    seen.end = model.state_dict() | {f"mask of {n}": mask for n, mask in sparse.masks.items()}
    return seen


def resume(make, method, saved):
    """What the saved run comes to in fresh objects, loaded in README's order."""
    model, optimizer, sparse = begin(make, method)
    states = torch.load(io.BytesIO(saved), weights_only=False)
    for part, state in zip((model, optimizer, sparse), states, strict=True):
        part.load_state_dict(state)
    assert not outside(states[0], sparse.masks)
    for step in range(STOPPED + 1, TOTAL + 1):
        take_step(model, optimizer, step)
    return model.state_dict() | {f"mask of {n}": mask for n, mask in sparse.masks.items()}


@functools.cache
def under_adamw(method):
    """The same run under torch's AdamW, by which others are judged."""
    return watch(OPTIMIZERS["AdamW"], method)


def jumps(seen, judge):
    """Whether an update does more to loss or weights than it does under AdamW."""
    return (
        seen.rise > judge.rise + TOLERANCE
        or seen.stride > STRIDE * max(1.0, judge.stride)
        or not math.isfinite(seen.rise + seen.stride)
    )


def check(make, method, judged=True):
    """Assert all that is demanded of an optimizer under a method."""
    seen = watch(make, method)
    # Weights to start from cannot be a key of the cache.
    judge = (under_adamw.__wrapped__ if isinstance(method, regrow.LTH) else under_adamw)(method)
    # Which layer has how many may follow from weights, too; how many there are does not.
    together = getattr(method, "shrink", "") == "global" or getattr(method, "redistribute", None)
    count = (lambda by_name: sum(by_name.values())) if together else dict
    # How many neurons SRigL ablates follows from weights: that the state is whole is what holds.
    if not isinstance(method, regrow.SRigL):
        assert [*map(count, seen.counts)] == [*map(count, judge.counts)]
    assert seen.updates == judge.updates
    assert not (judged and jumps(seen, judge)), (seen.rise, judge.rise, seen.stride, judge.stride)
    resumed = resume(make, method, seen.saved)
    for name, value in seen.end.items():
        assert torch.equal(resumed[name], value), f"{name} differs after resuming"


# ---------------------------------------------------------------------- every optimizer


@pytest.fixture
def method(build):
    """method(kind, ...): 30 % dense, updated every four steps to the end."""

    def make(kind, **options):
        common = {"density": 0.3, "update_every": EVERY, "stop_at": 1.0}
        common["trained"] = make_model().state_dict()  # what LTH starts from
        return build(kind, **common | options)

    return make


@pytest.mark.parametrize("case", METHODS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_drives_methods_that_stand_for_all(method, optimizer, case):
    kind, options = METHODS[case]
    check(OPTIMIZERS[optimizer], method(kind, **options), judged=optimizer not in UNJUDGED)


@pytest.mark.parametrize("optimizer", SOME)
@pytest.mark.parametrize("name", sorted(regrow.METHODS.keys() - METHODS.keys()))
def test_every_method_is_driven_by_optimizers_that_stand_for_all(method, build, name, optimizer):
    if name == "TopKAST" and "ScheduleFree" in optimizer:
        with pytest.raises(
            ValueError, match=r"TopKAST keeps weights aside of which AdamWSch.*AdamW, .*RigL"
        ):
            begin(OPTIMIZERS[optimizer], method(regrow.TopKAST))
        return
    if name == "SNFS" and optimizer in WITHOUT_MOMENTUM:
        with pytest.raises(RuntimeError, match=r"reads momentum.*use SGD with momentum, or Adam"):
            watch(OPTIMIZERS[optimizer], method(regrow.SNFS))
        return
    check(OPTIMIZERS[optimizer], method(regrow.METHODS[name]))


def codes_of_zero(optimizer, weight, changed, policy):
    """The fault: zeros among 8-bit codes, where a zero is the largest negative number there is."""
    grown, state = changed()[0], optimizer.state[weight]
    codes = [slot for slot in state.values() if getattr(slot, "dtype", None) == torch.uint8]
    return [functools.partial(slot.masked_fill_, grown, 0) for slot in codes]


@pytest.mark.parametrize("case", METHODS)
@pytest.mark.parametrize("optimizer", ["bitsandbytes AdamW8bit", "bitsandbytes Adam8bit"])
def test_what_is_asked_finds_the_fault_it_is_there_for(method, optimizer, case, monkeypatch):
    kind, options = METHODS[case]
    chosen = method(kind, **options)
    assert not jumps(watch(OPTIMIZERS[optimizer], chosen), under_adamw(chosen))
    monkeypatch.setattr("regrow.engine.topology.first_codes", codes_of_zero)
    assert jumps(watch(OPTIMIZERS[optimizer], chosen), under_adamw(chosen))


# ---------------------------------------------------------------------- refused, and the way out


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("policy", ["zero", "mean"])
def test_state_that_cannot_be_given_is_refused_in_the_first_step(method, name, policy):
    make, reason = REFUSED[name]
    model, optimizer, sparse = begin(make, method(regrow.SET, on_grow=policy))
    with pytest.raises(ValueError, match=rf"{reason}.*on_grow='keep'"):
        for step in range(1, EVERY):
            take_step(model, optimizer, step)
    assert not outside(model.state_dict(), sparse.masks)


@pytest.mark.parametrize("name", REFUSED)
def test_and_what_the_refusal_names_works(method, name):
    make, _ = REFUSED[name]
    check(make, method(regrow.SET, on_grow="keep"))


@pytest.mark.parametrize(
    ("name", "lr"), [("VSGD", 0.01), ("DAdaptAdaGrad", 10.0), ("DAdaptAdan", 0.1)]
)
def test_who_divides_by_state_is_refused_at_once(method, name, lr):
    """Grown weights became NaN and all others with them, or nothing was learnt, or unlearnt."""
    make = of(MORE, name, lr)
    with pytest.raises(ValueError, match=rf"{name} divides by .*on_grow='keep'"):
        begin(make, method(regrow.SET))
    begin(make, regrow.Static(density=0.3))  # grows nothing
    check(make, method(regrow.SET, on_grow="keep"), judged=name not in UNJUDGED)


@pytest.mark.parametrize("name", ["Adai", "AdamS"])
def test_who_raises_without_gradients_is_refused_where_a_step_has_none(method, name):
    """Updates of RigL take a step's place; its message was "parameter size is 0"."""
    make = of(MORE, name, 0.01)
    with pytest.raises(ValueError, match=rf"RigL's.*{name}.*RigL\(replaces_step=False"):
        begin(make, method(regrow.RigL))
    check(make, method(regrow.RigL, replaces_step=False))


def test_numbers_in_an_optimizers_state_that_belong_to_no_weight(method):
    """`sparsify` took them for the state of one: "'int' object is not iterable"."""
    check(of(MORE, "SPAM", 0.003), method(regrow.SET))


# ---------------------------------------------------------------------- optimizers inside others


@pytest.mark.parametrize("name", ["Lookahead", "ScheduleFree around AdamW", "TRAC"])
def test_grown_weights_find_zeros_in_the_optimizer_inside(method, name):
    """Only the outer one's state was written: the inner kept moments of masked weights."""
    model, optimizer, sparse = begin(OPTIMIZERS[name], method(regrow.RigL))
    for step in range(1, EVERY):
        take_step(model, optimizer, step)
    before = sparse.masks["2.weight"]
    take_step(model, optimizer, EVERY)
    grown = sparse.masks["2.weight"] & ~before
    assert grown.any()
    state = optimizer.optimizer.state[model[2].weight]
    for slot in ("exp_avg", "exp_avg_sq"):
        assert not state[slot][grown].any()
        assert state[slot][before].any()


def test_momentum_is_found_in_the_optimizer_inside(method):
    """SNFS grows by it, and said that there was none."""
    check(OPTIMIZERS["Lookahead"], method(regrow.SNFS))


@pytest.mark.parametrize("name", ["Lookahead", "Ranger"])
def test_slow_weights_are_as_sparse_as_the_weights(method, name):
    """Weights grown later were drawn to what they had been before the model was sparse."""
    model, optimizer, sparse = begin(OPTIMIZERS[name], method(regrow.SET))
    for step in range(1, TOTAL + 1):
        take_step(model, optimizer, step)
        for weight_name, mask in sparse.masks.items():
            state = optimizer.state[model.get_parameter(weight_name)]
            (slow,) = (v for k, v in state.items() if k.startswith("slow"))
            assert not slow[~mask].any()
            assert slow.any()


@pytest.mark.parametrize("execution", ["csr"])
def test_stored_layers_take_the_state_of_the_optimizer_inside_along(method, execution):
    model = make_model()
    optimizer = OPTIMIZERS["Lookahead"](model.parameters())
    take_step(model, optimizer, 0)
    dense = optimizer.optimizer.state[model[2].weight]["exp_avg"].clone()
    sparse = regrow.sparsify(
        model, optimizer, method(regrow.SET), total_steps=TOTAL, execution=execution
    )
    kept = optimizer.optimizer.state[model[2].weight]["exp_avg"]
    assert torch.equal(kept, dense[sparse.masks["2.weight"]])
    for step in range(1, TOTAL + 1):
        take_step(model, optimizer, step)
    assert len(sparse.history) == TOTAL // EVERY - 1


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if "Free" in n or n == "SPlus"])
def test_what_eval_shows_is_sparse_after_every_step(method, name, caplog):
    model, optimizer, sparse = begin(OPTIMIZERS[name], method(regrow.RigL))
    with caplog.at_level(logging.WARNING, "regrow"):
        for step in range(1, TOTAL + 1):
            take_step(model, optimizer, step)
            optimizer.eval()
            assert not outside(model.state_dict(), sparse.masks)
            optimizer.train()
            assert not outside(model.state_dict(), sparse.masks)
    assert not caplog.records


def test_masked_gradients_keep_sams_first_phase_inside_the_masks(method):
    """As the documentation says; without it inactive weights are perturbed between the phases."""
    seen = []
    for masked in (False, True):
        model, optimizer, sparse = begin(OPTIMIZERS["SAM"], method(regrow.RigL))
        for step in range(1, TOTAL + 1):
            inputs, labels = make_batch(step)
            functional.cross_entropy(model(inputs), labels).backward()
            if masked:
                sparse.mask_gradients_()
            optimizer.first_step(zero_grad=True)
            seen.append(outside(model.state_dict(), sparse.masks))
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.second_step(zero_grad=True)
            assert not outside(model.state_dict(), sparse.masks)
        assert len(sparse.history) == TOTAL // EVERY - 1
    assert min(seen[:TOTAL]) > 0 == max(seen[TOTAL:])


# ---------------------------------------------------------------------- a whole package

# Kron takes half a minute, LBFGS has its row above.
LEFT_OUT = {"kron", "lbfgs"}


def of_the_package():
    """Names by which pytorch_optimizer makes its optimizers; none where it is not installed."""
    try:
        import pytorch_optimizer
    except ImportError:
        return [pytest.param("", marks=pytest.mark.skip("needs the package pytorch_optimizer"))]
    return [name for name in pytorch_optimizer.get_supported_optimizers() if name not in LEFT_OUT]


def trains_dense(make):
    """Whether an optimizer trains this model at all, in this way, with its own defaults."""
    model = make_model()
    try:
        optimizer = make(model.parameters())
        for step in range(2):
            take_step(model, optimizer, step)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("name", of_the_package())
def test_every_optimizer_of_the_package_keeps_a_model_sparse_or_is_refused(method, name):
    make = need(MORE).load_optimizer(name)
    if not trains_dense(make):
        pytest.skip("needs options or a training loop of its own")
    chosen = method(regrow.SET)
    try:
        seen = watch(make, chosen)
    except ValueError as refusal:
        assert "pass on_grow='keep'" in str(refusal)
        chosen = method(regrow.SET, on_grow="keep")
        seen = watch(make, chosen)
    assert seen.counts == under_adamw(chosen).counts
    resumed = resume(make, chosen, seen.saved)
    assert all(torch.equal(resumed[key], value) for key, value in seen.end.items())
