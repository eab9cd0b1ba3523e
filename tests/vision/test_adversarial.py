"""Attacks: exact on linear models, alike another implementation, and without side effects."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

import regrow
from regrow.execution.stored import StoredLayer
from regrow.vision.adversarial import pgd, robust_accuracy

ROUNDING = 1e-6


def batch(n=8, shape=(3, 8, 8), classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, *shape, generator=generator)
    return images, torch.randint(classes, (n,), generator=generator)


def network(*, dropout=0.0):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(512, 4),
    )


def linear(classes=4, dtype=torch.float32):
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, classes, dtype=dtype))


def losses(predict, images, labels):
    return cross_entropy(predict(images), labels, reduction="none")


class TestTheBall:
    @settings(max_examples=25, deadline=None)
    @given(
        radius=st.floats(0, 1),
        step=st.floats(1e-3, 2),
        steps=st.integers(0, 4),
        random_start=st.booleans(),
        seed=st.integers(0, 1 << 40),
    )
    def test_is_never_left_nor_the_range(self, radius, step, steps, random_start, seed):
        images, labels = batch(4)
        found = pgd(
            network(),
            images,
            labels,
            radius=radius,
            step=step,
            steps=steps,
            random_start=random_start,
            seed=seed,
        )
        assert found.shape == images.shape and found.dtype == torch.float32
        assert float((found - images).abs().max()) <= radius + ROUNDING
        assert float(found.min()) >= 0 and float(found.max()) <= 1

    def test_of_no_radius_holds_the_image_alone(self):
        images, labels = batch()
        found = pgd(network(), images, labels, radius=0)
        assert found.equal(images)
        assert found.data_ptr() != images.data_ptr()

    def test_is_where_a_random_start_is_uniform(self):
        images = torch.full((4, 3, 64, 64), 0.5)
        found = pgd(nn.Flatten(), images, torch.zeros(4, dtype=torch.long), radius=0.25, steps=0)
        shares = torch.histc(found, bins=8, min=0.25, max=0.75) / found.numel()
        torch.testing.assert_close(shares, torch.full((8,), 1 / 8), rtol=0, atol=0.006)

    def test_is_the_images_neighbourhood_in_any_memory_format(self):
        images, labels = batch()
        model = network().eval()
        other = pgd(model, images.to(memory_format=torch.channels_last), labels)
        torch.testing.assert_close(other, pgd(model, images, labels), rtol=0, atol=4 / 255)
        assert float((other - images).abs().max()) <= 8 / 255 + ROUNDING


class TestTheOptimum:
    @pytest.mark.parametrize("random_start", [False, True])
    def test_of_two_linear_classes_is_the_corner_of_the_ball(self, random_start):
        """The margin is linear, so its worst point has a closed form."""
        images, labels = batch(classes=2)
        model = linear(2)
        found = pgd(model, images, labels, radius=0.1, step=0.03, random_start=random_start)
        weight = model[1].weight.detach()
        away = (weight[1 - labels] - weight[labels]).view_as(images)
        worst = (images + 0.1 * away.sign()).clamp(0, 1)
        torch.testing.assert_close(found, worst, rtol=0, atol=ROUNDING)

    def test_has_a_higher_loss_than_the_image_image_by_image(self):
        images, labels = batch(32)
        model = linear()
        found = pgd(model, images, labels, random_start=False)
        assert (losses(model, found, labels) > losses(model, images, labels)).all()

    def test_has_no_lower_loss_than_other_points_of_the_ball(self):
        images, labels = batch(16)
        model = network().eval()
        with torch.no_grad():
            best = losses(model, pgd(model, images, labels), labels).mean()
            for seed in range(5):
                drawn = pgd(model, images, labels, steps=0, seed=seed)
                assert losses(model, drawn, labels).mean() < best

    def test_leads_away_from_the_label_in_float64_too(self):
        images, labels = batch()
        model = linear(dtype=torch.float64)
        found = pgd(model, images.double(), labels.to(torch.uint8))
        assert found.dtype == torch.float64
        assert float((found - images).abs().max()) <= 8 / 255 + 1e-12
        assert (losses(model, found, labels) > losses(model, images.double(), labels)).all()


class TestAnotherImplementation:
    """Both are given the same start: the image."""

    @pytest.mark.parametrize(
        "model", [network().eval(), linear().eval()], ids=["network", "linear"]
    )
    def test_torchattacks(self, model):
        torchattacks = pytest.importorskip("torchattacks")
        images, labels = batch()  # eight, so that a mean's gradients are a sum's, exactly
        attack = torchattacks.PGD(model, eps=8 / 255, alpha=2 / 255, steps=10, random_start=False)
        found = pgd(model, images, labels, random_start=False)
        torch.testing.assert_close(found, attack(images, labels), rtol=0, atol=ROUNDING)

    @pytest.mark.parametrize(
        "model", [network().eval(), linear().eval()], ids=["network", "linear"]
    )
    def test_foolbox(self, model):
        foolbox = pytest.importorskip("foolbox")
        images, labels = batch()
        attack = foolbox.attacks.LinfPGD(abs_stepsize=2 / 255, steps=10, random_start=False)
        theirs = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        expected = attack.run(
            theirs, images, foolbox.criteria.Misclassification(labels), epsilon=8 / 255
        )
        found = pgd(model, images, labels, random_start=False)
        torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)


class TestTheStart:
    def test_follows_from_seed_and_index_alone(self):
        images, labels = batch()
        model = network().eval()
        whole = pgd(model, images, labels, steps=0, seed=3, first=10)
        parts = [pgd(model, images[i:], labels[i:], steps=0, seed=3, first=10 + i) for i in (0, 5)]
        assert whole.equal(parts[0]) and whole[5:].equal(parts[1])
        assert not whole.equal(pgd(model, images, labels, steps=0, seed=4, first=10))
        assert not whole.equal(pgd(model, images, labels, steps=0, seed=3))

    def test_is_the_same_after_other_random_numbers(self):
        images, labels = batch()
        model = network()
        once = pgd(model, images, labels)
        torch.rand(5)
        assert once.equal(pgd(model, images, labels))


def everything(model):
    return {
        "gradients": [p.grad.clone() for p in model.parameters() if p.grad is not None],
        "versions": [t._version for t in (*model.parameters(), *model.buffers())],
        "identities": [id(t) for t in (*model.parameters(), *model.buffers())],
        "state": [value.clone() for value in model.state_dict().values()],
        "modes": [module.training for module in model.modules()],
        "random": [torch.get_rng_state()],
    }


def unchanged(found, before):
    same = lambda a, b: a.equal(b) if isinstance(a, torch.Tensor) else a == b  # noqa: E731
    return all(
        len(before[key]) == len(values) and all(map(same, values, before[key]))
        for key, values in found.items()
    )


class TestNothingElse:
    @pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
    @pytest.mark.parametrize("ask", [torch.enable_grad, torch.no_grad, torch.inference_mode])
    def test_changes(self, mode, ask):
        model = network(dropout=0.5).train(mode != "eval")
        if mode == "mixed":
            model[1].eval()
        images, labels = batch()
        losses(model, images, labels).sum().backward()
        before, images_before = everything(model), images.clone()
        with ask():
            found = pgd(model, images, labels)
        assert unchanged(everything(model), before)
        assert images.equal(images_before) and images.grad is None
        assert not found.requires_grad and not found.is_inference()

    def test_changes_when_the_model_fails(self):
        model = network()
        losses(model, *batch()).sum().backward()
        before = everything(model)

        def predict(images):
            model(images)
            raise RuntimeError("out of memory")

        with pytest.raises(RuntimeError, match="out of memory"):
            pgd(predict, *batch(), model=model)
        assert unchanged(everything(model), before)

    def test_changes_through_a_compiled_model(self):
        model = network()
        before = copy.deepcopy(model.state_dict())
        found = pgd(torch.compile(model, backend="eager"), *batch())
        assert all(value.equal(before[name]) for name, value in model.state_dict().items())
        assert found.equal(pgd(model, *batch()))

    def test_counts_but_the_mode_the_model_is_in(self):
        """In training mode statistics are the attacked batch's, in eval mode the running ones."""
        images, labels = batch()
        model = network()
        trained = pgd(model, images, labels)
        fixed = copy.deepcopy(model)
        for momentum_free in fixed.modules():
            if isinstance(momentum_free, nn.BatchNorm2d):
                momentum_free.track_running_stats = False
                momentum_free.running_mean = momentum_free.running_var = None
        assert trained.equal(pgd(fixed, images, labels))
        assert not trained.equal(pgd(model.eval(), images, labels))

    def test_shares_buffers_that_are_shared(self):
        first, second = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        second.running_mean = first.running_mean
        seen = []

        class Both(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = first, second

            def forward(self, x):
                seen.append(self.first.running_mean is self.second.running_mean)
                return self.second(self.first(x))

        pgd(Both(), *batch(shape=(4,)))
        assert all(seen) and first.running_mean.equal(torch.zeros(4))
        assert second.running_mean is first.running_mean

    def test_breaks_a_graph_that_waits_for_its_backward_pass(self):
        """The loss of clean images is formed first, the attack follows, then both are summed."""
        images, labels = batch()

        def gradients(*, attack):
            model = network()
            clean = losses(model, images, labels).sum()
            if attack:
                pgd(model, images, labels)
            clean.backward()
            return [p.grad for p in model.parameters()]

        for ours, theirs in zip(gradients(attack=True), gradients(attack=False), strict=True):
            assert ours.equal(theirs)

    @pytest.mark.parametrize("half", [None, torch.bfloat16])
    def test_distinguishes_training_on_attacked_images_from_training_on_given_ones(self, half):
        """Weights, statistics and dropout of a step are those of the same images without attack."""
        images, labels = batch()

        def step(given=None):
            model = network(dropout=0.5)
            torch.manual_seed(5)
            with torch.autocast("cpu", dtype=half, enabled=half is not None):
                attacked = pgd(model, images, labels) if given is None else given
                loss = losses(model, attacked, labels).mean()
            loss.backward()
            torch.optim.SGD(model.parameters(), lr=0.1).step()
            return attacked, model.state_dict()

        attacked, ours = step()
        _, theirs = step(attacked)
        for name, value in theirs.items():
            assert ours[name].equal(value), name

    def test_is_gathered_by_layers_that_store_active_weights(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.RigL(density=0.2, update_every=2)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=20, execution="csr")
        layers = [x for x in sparse._topology.layers if isinstance(x, StoredLayer)]
        images, labels = batch()
        for layer in layers:
            layer.module.captures = True
        attacked = pgd(model, images, labels)
        assert layers and not any(layer.module.captured for layer in layers)
        assert all(layer.module.captures for layer in layers)
        losses(model, attacked, labels).sum().backward()
        assert all(layer.module.captured for layer in layers)


class TestHalfPrecision:
    def test_autocast_leaves_the_change_in_float32(self):
        images, labels = batch(16)
        model = network().eval()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = pgd(model, images, labels)
        assert found.dtype == torch.float32
        assert float((found - images).abs().max()) <= 8 / 255 + ROUNDING
        exact = pgd(model, images, labels)
        rise = losses(model, exact, labels).mean() - losses(model, images, labels).mean()
        gained = losses(model, found, labels).mean() - losses(model, images, labels).mean()
        assert gained > 0.9 * rise

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_images_come_back_in_float32(self, dtype):
        images, labels = batch()
        found = pgd(network(), images.to(dtype), labels)
        assert found.dtype == torch.float32
        assert float((found - images.to(dtype).float()).abs().max()) <= 8 / 255 + ROUNDING


class TestRefused:
    @pytest.mark.parametrize("value", [float("nan"), -0.1, 1.5, float("inf")])
    def test_values_outside_the_range(self, value):
        images, labels = batch()
        images[3, 1, 2, 2] = value
        with pytest.raises(ValueError, match=r"images have values .* in \[0, 1\], none NaN"):
            pgd(network(), images, labels)

    def test_bytes(self):
        _, labels = batch()
        images = torch.zeros(8, 3, 8, 8, dtype=torch.uint8)
        with pytest.raises(TypeError, match=r"torch\.uint8: must be floats .* divide bytes by 255"):
            pgd(network(), images, labels)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"radius": 8}, "radius=8: must be in"),
            ({"radius": -0.1}, "radius=-0.1: must be in"),
            ({"radius": float("nan")}, "radius=nan: must be in"),
            ({"step": 0}, "step=0: must be above 0"),
            ({"step": float("inf")}, "step=inf: must be above 0 and finite"),
            ({"steps": -1}, "steps=-1: must be an integer"),
            ({"steps": 2.5}, "steps=2.5: must be an integer"),
        ],
    )
    def test_options_out_of_range(self, options, message):
        with pytest.raises(ValueError, match=message):
            pgd(network(), *batch(), **options)

    def test_labels_that_do_not_fit(self):
        images, labels = batch()
        with pytest.raises(ValueError, match=r"\(8, 3, 8, 8\) and labels of shape \(7,\)"):
            pgd(network(), images, labels[:7])
        with pytest.raises(TypeError, match=r"labels of dtype torch\.float32: must be integers"):
            pgd(network(), images, labels.float())

    def test_logits_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"predict gave shape \(8, 3, 8, 8\) for 8 images"):
            pgd(nn.Identity(), *batch())

    def test_a_function_without_its_network(self):
        with pytest.raises(TypeError, match="model=None: predict is a function; pass the network"):
            pgd(lambda images: images.flatten(1), *batch())

    def test_a_gradient_that_is_nan(self):
        model = linear()
        with torch.no_grad():
            model[1].weight[0, 0] = float("nan")
        with pytest.raises(FloatingPointError, match="is NaN: check the model"):
            pgd(model, *batch())


class TestEmpty:
    def test_batches_stay_empty(self):
        found = pgd(network(), *batch(0))
        assert found.shape == (0, 3, 8, 8)


class TestRobustAccuracy:
    def batches(self, size):
        images, labels = batch(20)
        return zip(images.split(size), labels.split(size), strict=True)

    def test_is_what_counting_gives(self):
        model = network()
        images, labels = batch(20)
        found = robust_accuracy(model, [(images, labels)], radius=0.05, steps=4, seed=7)
        assert model.training
        model.eval()
        attacked = pgd(model, images, labels, radius=0.05, steps=4, seed=7)
        right = [float((model(x).argmax(1) == labels).float().mean()) for x in (images, attacked)]
        assert found == pytest.approx((*right, 20))

    @pytest.mark.parametrize("size", [1, 7])
    def test_does_not_depend_on_the_batches(self, size):
        model = linear(dtype=torch.float64)
        double = lambda pairs: ((x.double(), y) for x, y in pairs)  # noqa: E731
        options = {"radius": 0.02, "steps": 2}
        whole = robust_accuracy(model, double(self.batches(20)), **options)
        assert robust_accuracy(model, double(self.batches(size)), **options) == whole

    def test_tells_how_far_it_is_and_puts_modes_back(self):
        model = network()
        model[1].eval()
        before, told = everything(model), []
        robust_accuracy(model, self.batches(8), steps=1, tell=told.append)
        assert told == [8, 16, 20]
        assert unchanged(everything(model), before)

    def test_of_a_linear_model_follows_from_its_margins(self):
        """An attack of radius r lowers a margin of inner images by r times its weights' sum."""
        images, labels = batch(64, classes=2)
        images = 0.25 + images / 2
        model = linear(2)
        logits = model(images).detach()
        margin = logits.gather(1, labels[:, None]) - logits.gather(1, 1 - labels[:, None])
        lost = (model[1].weight[0] - model[1].weight[1]).abs().sum()
        radius = 0.02
        expected = float((margin > radius * lost).float().mean())
        found = robust_accuracy(model, [(images, labels)], radius=radius, step=radius)
        assert found.clean == float((margin > 0).float().mean())
        assert found.adversarial == expected

    @pytest.mark.parametrize("ask", [torch.no_grad, torch.inference_mode])
    def test_is_measured_where_gradients_are_off(self, ask):
        model = network()
        with ask(), torch.autocast("cpu", dtype=torch.bfloat16):
            found = robust_accuracy(model, self.batches(8), radius=0.3)
        assert found.adversarial < found.clean

    @pytest.mark.parametrize("batches", [[], [batch(0)]])
    def test_of_no_images_is_refused(self, batches):
        with pytest.raises(ValueError, match="batches hold no image"):
            robust_accuracy(network(), batches)


@pytest.mark.parametrize(("label", "said"), [(-100, "labels from -100"), (3, "labels up to 3")])
def test_a_label_that_is_no_class_is_refused(label, said):
    """Cross-entropy leaves -100 out in silence, and a GPU dies of a class too many."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images, labels = torch.rand(2, 3, 2, 2), torch.tensor([0, label])
    with pytest.raises(ValueError, match=said):
        pgd(model, images, labels)
    with pytest.raises(ValueError, match=said):
        robust_accuracy(model, [(images, labels)])


def test_nan_is_no_answer():
    """Its argmax is a class, which some labels are."""
    broken = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Threshold(9.0, torch.nan))
    with pytest.raises(FloatingPointError, match="predict gave NaN"):
        robust_accuracy(broken, [(torch.rand(2, 3, 2, 2), torch.tensor([0, 0]))])
