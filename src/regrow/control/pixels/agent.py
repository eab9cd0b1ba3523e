"""An agent that sees: soft actor-critic on images, with what each method adds to it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.control.draws import RunDraws
from regrow.control.graphs import Graphed
from regrow.control.pixels.augment import Augment
from regrow.control.pixels.auxiliary import Attribution, Soda, attribution_mask, guided_gradient
from regrow.control.pixels.frames import Frames
from regrow.control.pixels.images import offsets
from regrow.control.pixels.masker import Masker, binarised
from regrow.control.pixels.method import PixelMethod
from regrow.control.pixels.networks import Actor, Critic, Encoder, encoded_side, initialise_
from regrow.control.pixels.setting import PixelSetting
from regrow.control.sac import squashed

__all__ = ["PixelAgent"]

_GRAIN = 8  # pixels of a random mask's grid


class PixelAgent:
    """Encoder, masker, actor and critics, their targets and optimizers, and the update.

    Critic: y = r + γ·(1 − ended)·(min Q'(s', a') − α·log π(a'|s')), s' masked by the masker as it
    is now (there is no target masker), on images that are not augmented strongly; the loss is the
    mean over observations, and over augmented copies of them towards the same y, of the squared
    errors of both values. It alone trains encoder and masker. The actor learns on features through
    which no gradient goes back; it has a projection of its own.

    Args:
        method: what is augmented and masked.
        setting: sizes and rates.
        actions: numbers in an action, each in −1..1.
        seed: of everything random.
        device: where it learns.
        photos: for overlays, uint8 squares, (N, 3, S, S).
        stack: frames in an observation.

    Attributes:
        encoder: of images, shared by actor and critics.
        masker: None if nothing is masked by a network.
        updates: of the critic so far.

    Source: MaDi (AAMAS 2024, arXiv 2312.15339), SVEA (arXiv 2107.00644), SODA (arXiv 2011.13389),
    SGQN (arXiv 2209.09203), DrQ (arXiv 2004.13649), RAD (arXiv 2004.14990), and their common code.
    """

    def __init__(
        self,
        method: PixelMethod,
        setting: PixelSetting,
        actions: int,
        seed: int,
        device: torch.device,
        photos: Tensor | None = None,
        stack: int = 3,
    ) -> None:
        self.method, self.setting, self.actions, self.device = method, setting, actions, device
        self.stack, self.updates = stack, 0
        self.channels = 4 if method.mask == "segmentation" else 3  # of a frame in the replay
        self._low = setting.precision == "bfloat16" or (
            setting.precision == "auto" and device.type == "cuda"
        )
        self._build_(seed)
        self.augment = Augment(setting.augmentation, photos, setting.overlay, seed, device)
        names = ("batches", "starts", "actions of updates", "masks", "auxiliary", *_ACTING)
        self.draws = {name: RunDraws([seed], name, device) for name in names}
        self._graphs: dict[tuple[bool, ...], Graphed] = {}
        self._hide = self._compiled(lambda images: self.masked(images, None))
        self._encode = self._compiled(self.encoder)
        self._encode_target = self._compiled(self.target_encoder)
        self.losses = torch.zeros(3, device=device)  # critic's, actor's, auxiliary

    # ------------------------------------------------------------------ networks

    def _build_(self, seed: int) -> None:
        setting, method = self.setting, self.method
        generator = torch.Generator().manual_seed(seed)
        side = encoded_side(setting.size, setting.layers)
        features = setting.filters * side * side
        sizes = (features, self.actions, setting.projection, setting.width)
        with torch.random.fork_rng(devices=[]):  # layers draw weights as they are made
            torch.manual_seed(seed)
            self.encoder = Encoder(3 * self.stack, setting.layers, setting.filters)
            self.critic, self.actor = Critic(*sizes), Actor(*sizes)
            self.masker = self._make_masker()
            for net in (self.encoder, self.critic, self.actor, self.masker):
                if net is not None:
                    initialise_(net, generator)
            self.soda = self.attribution = None
            if method.auxiliary == "soda":
                self.soda = Soda(features, setting.projection, generator)
            elif method.auxiliary == "sgqn":
                inputs = setting.projection + self.actions
                self.attribution = Attribution(
                    3 * self.stack, setting.size, side, setting.filters, inputs
                )
        for name in _NETWORKS:
            if (net := getattr(self, name)) is not None:
                setattr(self, name, self._placed(net))
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.soda_encoder = None
        if self.soda is not None:
            self.soda_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        start = math.log(setting.temperature)
        self.log_alpha = torch.full((), start, device=self.device, requires_grad=True)
        self._optimize_()

    def _make_masker(self) -> Masker | None:
        if self.method.mask != "learned":
            return None
        return Masker(self.method.masker, self.stack, self.setting.filters)

    def _placed(self, net: nn.Module) -> nn.Module:
        if self.device.type == "cuda":
            return net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
        return net.to(self.device)

    def _optimize_(self) -> None:
        setting, method = self.setting, self.method
        critic = [*self.encoder.parameters(), *self.critic.parameters()]
        groups = [
            {"params": critic, "lr": setting.learning_rate, "weight_decay": method.weight_decay}
        ]
        if self.masker is not None:
            groups.append({"params": list(self.masker.parameters()), "lr": setting.masker_rate})
        self.optimizers = {"critic": self._adam(groups)}
        actor = [{"params": list(self.actor.parameters()), "lr": setting.learning_rate}]
        self.optimizers["actor"] = self._adam(actor)
        alpha = [{"params": [self.log_alpha], "lr": setting.temperature_rate}]
        self.optimizers["alpha"] = self._adam(alpha, 0.5)
        if learnt := self._auxiliary_parameters():
            group = [{"params": learnt, "lr": method.auxiliary_rate}]
            self.optimizers["auxiliary"] = self._adam(group)

    def _adam(self, groups: Any, beta: float = 0.9) -> torch.optim.Adam:
        cuda = self.device.type == "cuda"
        return torch.optim.Adam(groups, betas=(beta, 0.999), fused=cuda, capturable=cuda)

    def _auxiliary_parameters(self) -> list[nn.Parameter]:
        if self.soda is not None:
            return [*self.encoder.parameters(), *self.soda.learnt()]
        if self.attribution is not None:
            projection = self.critic.projection.parameters()
            return [*self.encoder.parameters(), *projection, *self.attribution.parameters()]
        return []

    # ------------------------------------------------------------------ seeing

    def images(self, stacked: Tensor) -> tuple[Tensor, Tensor | None]:
        """Turn bytes, (B, stack · channels, H, W), into images in 0..1, and foregrounds if stored.

        Returns:
            Images, (B, 3 · stack, H, W), channels last on a GPU; foregrounds, (B, stack, H, W).
        """
        kind = torch.bfloat16 if self._low else torch.float32
        foreground = None
        if self.channels > 3:
            frames = stacked.unflatten(1, (self.stack, self.channels))
            foreground = (frames[:, :, 3] > 0).to(kind)
            stacked = frames[:, :, :3].flatten(1, 2)
        if self.device.type == "cuda":
            stacked = stacked.contiguous(memory_format=torch.channels_last)
        return stacked.to(kind) / 255, foreground

    def masks(
        self, images: Tensor, foreground: Tensor | None, *, test: bool = False, of: str = "masks"
    ) -> Tensor | None:
        """Return the masks of images, (B, stack, H, W) in 0..1; None: nothing is masked.

        Args:
            images: in 0..1.
            foreground: what is to be seen, where it is known.
            test: whether this is a test, in which mixed masks are hard.
            of: names the draws of random masks.
        """
        kind, method = self.method.mask, self.method
        if kind == "segmentation":
            return foreground
        if kind == "random":
            grid = max(2, images.shape[-1] // _GRAIN)
            drawn = self.draws[of].uniform(len(images), self.stack, grid, grid)[0]
            size = images.shape[2:]
            return functional.interpolate(drawn, size, mode="bilinear").to(images.dtype)
        if kind == "ones":
            return torch.ones_like(images[:, ::3])
        if self.masker is None:
            return None
        mask: Tensor = self.masker(images, self.encoder.first)
        if method.hard == "hard" or (method.hard == "mixed" and test):
            mask = binarised(mask, method.threshold, method.level)
        return mask

    def masked(self, images: Tensor, foreground: Tensor | None, **how: Any) -> Tensor:
        """Return images times their masks."""
        mask = self.masks(images, foreground, **how)
        return images if mask is None else images * mask.repeat_interleave(3, 1)

    def features(self, images: Tensor, foreground: Tensor | None) -> Tensor:
        """Return what the encoder makes of masked images, as updates compute it."""
        return self._encode(self._hidden(images, foreground))

    def _hidden(self, images: Tensor, foreground: Tensor | None) -> Tensor:
        if self.masker is None:  # what is drawn or given stays outside of what is compiled
            return self.masked(images, foreground)
        return self._hide(images)

    def _compiled(self, call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return torch.compile(call, dynamic=False) if self.setting.compiled else call

    def look(self, stacked: Tensor) -> Tensor | None:
        """Return the masks of what is seen, (B, stack, H, W), as in tests; None: there are none.

        Args:
            stacked: bytes, as of :meth:`act`.
        """
        with torch.no_grad(), self._cast():
            return self.masks(*self.images(stacked), test=True, of="masks of tests")

    def act(self, stacked: Tensor, *, test: bool) -> Tensor:
        """Return actions (B, A) for what is seen; in a test the most likely ones.

        Args:
            stacked: bytes, (B, stack · channels, H, W), cut to the agent's size.
            test: whether nothing is drawn, and mixed masks are hard.
        """
        with torch.no_grad(), self._cast():
            images, foreground = self.images(stacked)
            of = "masks of tests" if test else "masks of actions"
            features = self.encoder(self.masked(images, foreground, test=test, of=of))
            mean, log_std = self.actor(features)
            if test:
                return torch.tanh(mean)
            noise = self.draws["actions"].normal(len(stacked), self.actions)[0]
            return squashed(mean, log_std, noise)[0]

    def _drawn(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions (B, A) and their log-probabilities (B,)."""
        mean, log_std = self.actor(features)
        return squashed(mean, log_std, noise)

    def _cast(self) -> AbstractContextManager[Any]:
        # Weights move between the losses of an update: casts of them must not be kept.
        kind = torch.bfloat16
        return torch.autocast(self.device.type, kind, enabled=self._low, cache_enabled=False)

    # ------------------------------------------------------------------ learning

    def learn_(self, ring: Frames) -> None:
        """Make an update from a batch of the replay; on a GPU a CUDA graph, from the fourth on."""
        self.updates += 1
        due = tuple(
            self.updates % getattr(self.setting, name) == 0
            for name in ("actor_every", "target_every", "auxiliary_every")
        )
        if due not in self._graphs:
            self._graphs[due] = Graphed(lambda: self.update_(ring, *due), self.device)
        self._graphs[due]()

    def update_(self, ring: Frames, actor: bool, target: bool, auxiliary: bool) -> None:
        """Make an update eagerly: the critic's, and those of the others that are due."""
        places = ring.chosen(self.draws["batches"].uniform(self.setting.batch)[0])
        numbers = ring.numbers(places)
        starts = self._starts(ring, len(places))
        observed, following = (
            self.images(ring.stacked(n, s, self.setting.size))
            for n, s in zip(numbers, starts, strict=True)
        )
        actions = ring.actions[places]
        noise = self.draws["actions of updates"].normal(2, len(places), self.actions)[0]
        with self._cast():
            with torch.no_grad():
                wanted = self._wanted(ring, places, following, noise[0])
            self._teach_(self._critic_loss(observed, actions, wanted), "critic", 0)
            if actor:
                self._improve_(observed, noise[1])
            if target:
                self._move_targets_()
            if auxiliary and self.soda is not None:
                self._learn_soda_(ring)
            elif auxiliary and self.attribution is not None:
                self._learn_attribution_(observed[0], actions)

    def _starts(self, ring: Frames, batch: int) -> list[Tensor | None]:
        """Draw where observations and next observations are cut out; None: they are whole."""
        method, setting = self.method, self.setting
        if not method.crop and method.shift == "none":
            return [None, None]
        drawn = self.draws["starts"].uniform(2, batch, 2)[0]
        if method.crop:
            return list(offsets(drawn, ring.frames.shape[2] - setting.size))
        now, then = offsets(drawn, 2 * setting.shift) - setting.shift
        return [now, then if method.shift == "both" else None]

    def _wanted(
        self,
        ring: Frames,
        places: Tensor,
        following: tuple[Tensor, Tensor | None],
        noise: Tensor,
    ) -> Tensor:
        """Return the target values, (B, 1)."""
        masked = self._hidden(*following)
        action, log_prob = self._drawn(self._encode(masked), noise)
        ahead = torch.minimum(*self.target_critic(self._encode_target(masked), action))
        ahead = ahead - self.log_alpha.exp() * log_prob[:, None]
        return ring.rewards[places] + self.setting.discount * (1 - ring.ended[places]) * ahead

    def _critic_loss(
        self, observed: tuple[Tensor, Tensor | None], actions: Tensor, wanted: Tensor
    ) -> Tensor:
        images, foreground = observed
        if self.method.strong:
            images = torch.cat([images, self.augment(images)])
            foreground = None if foreground is None else foreground.repeat(2, 1, 1, 1)
            actions, wanted = actions.repeat(2, 1), wanted.repeat(2, 1)
        values = self.critic(self.features(images, foreground), actions)
        first, second = (functional.mse_loss(value, wanted) for value in values)
        loss = first + second
        if self.method.auxiliary == "sgqn":
            loss = loss + 0.5 * self._inconsistency(images, actions, values)
        return loss

    def _inconsistency(self, images: Tensor, actions: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Return how far values change where pixels that they do not hang on are of one grey."""
        gradient = guided_gradient(self.encoder, self.critic, images, actions)
        kept = attribution_mask(gradient, self.method.quantile)
        low, high = images.min(), images.max()
        grey = low + (high - low) * self.draws["auxiliary"].uniform(1)[0].to(images.dtype)
        others = self.critic(self.encoder(torch.where(kept, images, grey)), actions)
        first, second = map(functional.mse_loss, values, others)
        return first + second

    def _improve_(self, observed: tuple[Tensor, Tensor | None], noise: Tensor) -> None:
        """Move the actor and the temperature; no gradient reaches encoder, masker or critics."""
        with torch.no_grad():
            features = self.features(*observed)
        action, log_prob = self._drawn(features, noise)
        value = torch.minimum(*self.critic(features, action))
        alpha = self.log_alpha.exp()
        self._teach_((alpha.detach() * log_prob[:, None] - value).mean(), "actor", 1)
        self._teach_((alpha * (self.actions - log_prob.detach())).mean(), "alpha")

    def _learn_soda_(self, ring: Frames) -> None:
        assert self.soda is not None and self.soda_encoder is not None
        drawn = self.draws["auxiliary"].uniform(self.setting.soda_batch, 5)[0]
        now, _ = ring.numbers(ring.chosen(drawn[:, 0]))
        edge = ring.frames.shape[2] - self.setting.size
        plain, other = (
            self.images(ring.stacked(now, offsets(part, edge), self.setting.size))[0]
            for part in (drawn[:, 1:3], drawn[:, 3:])
        )
        with torch.no_grad():
            wanted = self.soda_encoder(plain)
        self._teach_(self.soda(self.encoder(self.augment(other)), wanted), "auxiliary", 2)
        soda, rate = self.soda, self.setting.soda_rate
        _follow(self.soda_encoder, self.encoder, rate)
        _follow(soda.target, soda.projection, rate)

    def _learn_attribution_(self, images: Tensor, actions: Tensor) -> None:
        assert self.attribution is not None
        gradient = guided_gradient(self.encoder, self.critic, images, actions)
        wanted = attribution_mask(gradient, self.method.quantile).float()
        projected = self.critic.projection(self.encoder(self.augment(images)))
        foreseen = self.attribution(projected, actions).float()
        loss = functional.binary_cross_entropy_with_logits(foreseen, wanted)
        self._teach_(loss, "auxiliary", 2)

    def _teach_(self, loss: Tensor, name: str, place: int | None = None) -> None:
        """Make a step of an optimizer down a loss, and keep the loss."""
        optimizer = self.optimizers[name]
        learnt = [p for group in optimizer.param_groups for p in group["params"]]
        with torch.autocast(self.device.type, enabled=False):
            gradients = torch.autograd.grad(loss, learnt)
            for parameter, gradient in zip(learnt, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        for parameter in learnt:
            parameter.grad = None
        if place is not None:
            self.losses[place] = loss.detach()

    def _move_targets_(self) -> None:
        rate, slow = self.setting.target_rate, self.setting.encoder_target_rate
        _follow(self.target_critic.q1, self.critic.q1, rate)
        _follow(self.target_critic.q2, self.critic.q2, rate)
        _follow(self.target_critic.projection, self.critic.projection, slow)
        _follow(self.target_encoder, self.encoder, slow)

    # ------------------------------------------------------------------ state

    def parameters(self) -> dict[str, int]:
        """Return how many parameters each network that learns has."""
        nets = {name: getattr(self, name) for name in _NETWORKS}
        return {
            name: sum(p.numel() for p in net.parameters() if p.requires_grad)
            for name, net in nets.items()
            if net is not None
        }

    def _parts(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in (*_NETWORKS, *_TARGETS)}
        parts |= {f"optimizer of {name}": o for name, o in self.optimizers.items()}
        parts |= {f"draws of {name}": draws for name, draws in self.draws.items()}
        parts |= {f"augmentation of {n}": draws for n, draws in self.augment.draws.items()}
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes."""
        state = {name: copy.deepcopy(part.state_dict()) for name, part in self._parts().items()}
        own = {"log_alpha": self.log_alpha.detach().clone(), "updates": self.updates}
        return {"parts": state, **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; before any update, which a GPU would have captured otherwise."""
        for name, part in self._parts().items():
            part.load_state_dict(state["parts"][name])
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        self.updates = state["updates"]


_NETWORKS = ("encoder", "critic", "actor", "masker", "soda", "attribution")
_TARGETS = ("target_encoder", "target_critic", "soda_encoder")
_ACTING = ("actions", "masks of actions", "masks of tests")


@torch.no_grad()
def _follow(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Move a target's weights towards those of its source."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)
