"""The loop knows no domain: tuples and dicts of tensors, a loss a sample, ids, steps on demand."""

import time
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import regrow
from regrow.lab.files import read_lines
from regrow.lab.run import METRICS, Run
from regrow.measure.movement import churn
from regrow.training import Batch, Problem, Setting, Source, start, take_steps, train
from regrow.training.loop import check_finite, not_finite

N, SIZE = 24, 6


class Shuffled:
    """Series of two parts, and what is to be foretold of them."""

    def __init__(self):
        draw = torch.Generator().manual_seed(0)
        self.series = torch.randn(N, 8, generator=draw)
        self.scale = torch.rand(N, 1, generator=draw) + 0.5
        self.future = self.series.flip(1)[:, :4] * self.scale

    def __len__(self):
        return N // SIZE

    def epoch(self, number):
        order = torch.randperm(N, generator=torch.Generator().manual_seed(number))
        for ids in order.split(SIZE):
            inputs = self.series[ids], self.scale[ids]
            targets = {"future": self.future[ids], "names": [f"series {i}" for i in ids]}
            yield Batch(inputs, targets, ids)


class Scaled(nn.Module):
    """A model of two arguments and a dict of outputs."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, series, scale):
        return {"future": self.net(series) * scale}


@dataclass(frozen=True, kw_only=True)
class Forecast(Setting, Problem):
    """No image, no class, no argmax."""

    one_each: bool = True

    def open(self, setting, run):
        return Source(
            batches=Shuffled(),
            example=lambda n: (torch.zeros(n, 8), torch.ones(n, 1)),
            ready=lambda inputs: (inputs[0] * 1.0, inputs[1]),
        )

    def build(self, source):
        return Scaled()

    def loss(self, outputs, batch):
        assert batch.targets["names"] == [f"series {i}" for i in batch.ids.tolist()]
        losses = (outputs["future"] - batch.targets["future"]).square().mean(1)
        return losses if self.one_each else losses.mean()

    def counts(self, outputs, batch):
        return {
            "close": (outputs["future"] - batch.targets["future"])
            .abs()
            .lt(0.1)
            .float()
            .mean(1)
            .sum()
        }

    def validate(self, trainer):
        return {"error": self.test(trainer, None)["error"]}

    def test(self, trainer, run):
        batches = trainer.source.batches
        outputs = trainer.outputs((batches.series, batches.scale))
        return {"error": float((outputs["future"] - batches.future).square().mean())}


def forecast(**changes):
    method = regrow.SET(density=0.5, update_every=3)
    return Forecast(
        **{"seed": 0, "method": method, "epochs": 6, "batch": SIZE, "learning_rate": 0.05} | changes
    )


def run(problem, folder, kind=Run, **options):
    folder.mkdir(exist_ok=True)
    given = kind(folder, {"device": "cpu"} | options, save_every=0.0)
    trainer = start(problem, problem, given)
    return train(problem, trainer, given), read_lines(folder / METRICS), trainer


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_a_problem_of_another_domain_is_learnt_sparsely(tmp_path):
    result, metrics, trainer = run(forecast(epochs=12), tmp_path / "run")
    assert [set(line) for line in metrics] == [
        {"epoch", "loss", "train_close", "validation_error", "density", "updates", "exchanged"}
    ] * 12
    grown = [share for _, share in churn(trainer.sparse)]
    assert 0 < sum(line["exchanged"] for line in metrics) == pytest.approx(sum(grown))
    assert [line["updates"] for line in metrics] == sorted(line["updates"] for line in metrics)
    assert metrics[-1]["updates"] == len(grown)
    assert result["error"] == metrics[-1]["validation_error"] < 0.7 * metrics[0]["validation_error"]
    assert result["updates"] == len(trainer.sparse.history) > 3
    assert result["nonzeros"] < 0.7 * result["parameters"]
    assert result["inference_flops"] == pytest.approx(
        0.5 * result["dense_inference_flops"], rel=0.05
    )


def test_what_a_run_opens_when_it_begins_takes_no_training(tmp_path, monkeypatch):
    clock = [0.0]

    def opens():
        clock[0] += 5.0

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    given = Run(tmp_path, {"device": "cpu"}, begin=opens)
    problem = forecast(epochs=2)
    assert train(problem, start(problem, problem, given), given)["train_seconds"] == 0.0
    assert clock == [5.0]


def test_a_loss_a_sample_is_its_mean(tmp_path):
    each, mean = (run(forecast(one_each=b), tmp_path / str(b))[2] for b in (True, False))
    torch.testing.assert_close(weights(each), weights(mean))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_it_goes_on_bit_for_bit(tmp_path, precision):
    class CutOff(Exception):
        pass

    class Cut(Run):
        def log(self, **values):
            super().log(**values)
            if values["epoch"] == 3:
                raise CutOff

    _, metrics, whole = run(forecast(precision=precision), tmp_path / "whole")
    with pytest.raises(CutOff):
        run(forecast(precision=precision), tmp_path / "cut", Cut)
    torch.manual_seed(99)
    _, again, resumed = run(forecast(precision=precision), tmp_path / "cut")
    assert again == metrics
    assert weights(resumed).equal(weights(whole))


@pytest.mark.parametrize("execution", ["csr", "auto"])
def test_stored_layers_are_called_as_the_model_is(tmp_path, execution):
    result, _, _ = run(forecast(epochs=2), tmp_path / "run", execution=execution)
    assert result["error"] > 0


def test_a_sample_can_be_left_out_by_its_id(tmp_path):
    """A loss of 0 for some samples: whatever they are, nothing is learnt of them."""

    class Some(Forecast):
        def loss(self, outputs, batch):
            return super().loss(outputs, batch) * (batch.ids >= 4)

    class Spoilt(Some):
        def open(self, setting, run):
            source = super().open(setting, run)
            source.batches.future[:4] = 1000.0
            return source

    fields = vars(forecast())
    clean, spoilt = (run(kind(**fields), tmp_path / kind.__name__)[2] for kind in (Some, Spoilt))
    assert weights(clean).equal(weights(spoilt))


def test_each_step_is_taken_when_it_is_asked_for():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = LambdaLR(optimizer, lambda step: 0.5**step)
    batches = (Batch(torch.tensor([float(i)]), None, torch.tensor([i])) for i in range(4))
    gradients = []
    steps = take_steps(
        batches,
        lambda batch: (-weight * batch.inputs, {"seen": batch.inputs}),
        optimizer,
        schedule,
        before_step=lambda: gradients.append(weight.grad.item()),
    )
    assert not gradients
    for number, at in enumerate((0.0, 0.5, 1.0, 1.375)):  # Σ i / 2^i
        step = next(steps)
        assert weight.item() == at
        assert gradients == [-float(i) for i in range(number + 1)]
        assert step.counts["seen"].item() == number and len(step.batch) == 1
        assert schedule.get_last_lr() == [0.5 ** (number + 1)]
    assert next(steps, None) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "epochs=0: must be at least 1"),
        ({"optimizer": "adam"}, "optimizer='adam': must be one of sgd, adamw"),
        ({"warmup": 7}, r"warmup=7: must lie in 0..6"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        forecast(**changes)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    words = r"in epoch 1 \(weights of net.+\): lower the learning rate"
    with pytest.raises(FloatingPointError, match=words):
        run(forecast(learning_rate=1e30, method=regrow.Static(density=0.5)), tmp_path / "run")


def test_gradients_are_clipped_without_those_of_dropped_weights(tmp_path):
    """A step of plain SGD is as long as the clipped norm times the learning rate."""
    plain = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "warmup": 0.0}
    method = regrow.SET(density=0.5, update_every=24)
    problem = forecast(method=method, clip=1e-3, **plain)
    trainer = start(problem, problem, Run(tmp_path, {"device": "cpu"}))
    before = weights(trainer)
    next(iter(trainer.epoch_steps()))
    # Were gradients of dropped weights counted, the kept ones' step would be shorter.
    assert float((weights(trainer) - before).norm()) == pytest.approx(0.05 * 1e-3, rel=1e-3)
    loose = start(forecast(method=method, clip=1e9, **plain), problem, Run(tmp_path, {}))
    unclipped = start(forecast(method=method, **plain), problem, Run(tmp_path, {}))
    for one in (loose, unclipped):
        next(iter(one.epoch_steps()))
    torch.testing.assert_close(weights(loose), weights(unclipped), rtol=0, atol=1e-7)


def test_only_included_weights_become_sparse(tmp_path):
    problem = forecast(include=("net.0.*",))
    trainer = start(problem, problem, Run(tmp_path, {"device": "cpu"}))
    assert list(trainer.sparse.masks) == ["net.0.weight"]


def test_the_layer_at_which_float16_overflows_is_named():
    """The weights are fine, and so is the first layer: the message said that of no layer."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).half()
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(20.0)
    inputs = torch.full((3, 2), 100.0, dtype=torch.float16)
    where = not_finite(model, lambda: model(inputs))
    assert where == "outputs of layer 2 in float16"
    with pytest.raises(FloatingPointError, match=r"in epoch 2 \(outputs of layer 2 in float16\)"):
        check_finite(float("inf"), 2, lambda: where)
    assert not_finite(model, lambda: model(inputs / 100)) == ""
    given = not_finite(model, lambda: model(inputs * torch.inf))
    assert given == "inputs of layer 0 in float16"
    model[2].weight.data[0, 1] = torch.nan
    assert not_finite(model, lambda: model(inputs)) == "weights of 2.weight"
    assert not any(module._forward_hooks for module in model)


@pytest.mark.parametrize("spoilt", range(N // SIZE))
def test_whichever_batch_overflows_the_layer_is_named(tmp_path, spoilt):
    """A scaled run skips the step and goes on: at the end of the epoch, weights are fine."""

    class Spoilt(Forecast):
        def open(self, setting, run):
            source = super().open(setting, run)
            order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
            source.batches.series[order[spoilt * SIZE]] = 1e6  # beyond 65,504
            return source

    problem = Spoilt(**vars(forecast(precision="float16")))
    trainer = start(problem, problem, Run(tmp_path, {"device": "cpu"}))
    words = r"the loss is nan in epoch 1 \((in|out)puts of layer net\.0 in float16\)"
    with pytest.raises(FloatingPointError, match=words):
        trainer.run_epoch()
    assert all(weight.isfinite().all() for weight in trainer.model.parameters())


def test_small_gradients_are_not_lost_in_float16(tmp_path):
    """Losses are scaled on every device: what float16 would round to 0 is learnt."""

    class Small(Forecast):
        def loss(self, outputs, batch):
            return super().loss(outputs, batch) * 1e-7

    moved = {}
    for precision in ("float32", "float16"):
        problem = Small(**vars(forecast(precision=precision, weight_decay=0.0)))
        trainer = start(problem, problem, Run(tmp_path, {"device": "cpu"}))
        weight = trainer.model.net[0].weight
        before = weight.detach().clone()
        trainer.optimizer.param_groups[0]["lr"] = 1e6
        next(iter(trainer.epoch_steps()))
        moved[precision] = weight.detach() - before
    assert moved["float32"].any()
    torch.testing.assert_close(moved["float16"], moved["float32"], rtol=0.05, atol=1e-4)
