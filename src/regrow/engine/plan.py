"""Makes the plan of a model: chooses the weights to be sparse and counts their units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.weight_norm import WeightNorm

from regrow.engine.chains import follows
from regrow.engine.layouts import UNKNOWN, Layout, is_conv1d, layouts_of, turned
from regrow.engine.method import Method
from regrow.engine.patterns import Block, Kernel
from regrow.engine.planned import Plan, PlannedLayer
from regrow.engine.presence import parametrized_by, why_not_free

__all__ = ["make_plan"]

Globs = str | Sequence[str] | None

# A weight of these connects units to units; any other weight (of norms, embeddings, positions) is
# no set of connections and is sparse only when included by name.
_CONNECTING = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.Bilinear,
)
_TABLES = (nn.Embedding, nn.EmbeddingBag)


def make_plan(
    model: nn.Module,
    method: Method,
    include: Globs = None,
    exclude: Globs = None,
    *,
    trained: bool = True,
) -> Plan:
    """Decide which weights of a model become sparse and how dense; changes nothing.

    By default these are the weights of linear and bilinear layers, convolutions, attention
    projections, recurrent layers and their cells, and of GPT-2's Conv1D in transformers. A tied
    weight counts once, under its first name.

    Args:
        model: any module.
        method: gives densities and the pattern.
        include: globs over parameter names; if given, exactly the floating-point parameters of two
            or more dimensions that match become sparse.
        exclude: globs over parameter names that stay dense.
        trained: whether parameters that require no gradient stay dense.

    Returns:
        The plan; ``str`` of it is a table.

    Raises:
        ValueError: a glob matches no parameter, nothing is left to be sparse, a parameter has no
            shape yet, or the pattern does not fit a layer.

    Example:
        >>> from regrow.engine.method import Static
        >>> print(make_plan(nn.Sequential(nn.Linear(8, 4)), Static(density=0.25)))
        weight    shape  units  start  end  density
        0.weight    4×8     32      8    8   0.2500
        dense: 0.bias (fewer than two dimensions)
    """
    parameters = dict(model.named_parameters())
    included, excluded = _globs(include, "include"), _globs(exclude, "exclude")
    for argument, globs in (("include", included), ("exclude", excluded)):
        for glob in globs:
            # A misspelt glob would otherwise leave a layer dense, or sparse, without a word.
            if not any(fnmatchcase(name, glob) for name in parameters):
                raise ValueError(
                    f"{argument}={glob!r} matches no parameter; "
                    f"the model's are: {', '.join(parameters) or 'none'}"
                )
    connecting, normed = _connecting_ids(model), _normed_ids(model)
    skipped: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parameter in parameters.items():
        if isinstance(parameter, UninitializedParameter):
            raise ValueError(f"{name} has no shape yet: run one batch through the model first")
        why = _why_dense(model, name, parameter, included, excluded, connecting, normed, trained)
        if why:
            skipped[name] = why
        else:
            shapes[name] = tuple(parameter.shape)
    if not shapes:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise ValueError(
            f"no weight is left to be sparse ({reasons}): widen include or exclude less"
        )
    if bad := [f"{name}: {why}" for name in shapes if (why := why_not_free(model, name))]:
        raise ValueError(f"{'; '.join(bad)}; or exclude it")
    layouts = layouts_of(model)
    for name, shape in shapes.items():
        _check_layout(method, name, len(shape), layouts.get(name, UNKNOWN))
    _check_tables(model, method, shapes)
    return Plan(tuple(_planned_layers(method, shapes, follows(model), layouts)), skipped)


def _planned_layers(
    method: Method,
    shapes: dict[str, tuple[int, ...]],
    after: Mapping[str, str],
    layouts: Mapping[str, Layout],
) -> Iterable[PlannedLayer]:
    # Of experts in one tensor, how wide each is decides, not how many they are.
    sizes = {name: layouts.get(name, UNKNOWN).ordered(shape) for name, shape in shapes.items()}
    initial, final = method.initial_densities(sizes), method.densities(sizes)
    for name, shape in shapes.items():
        layout = layouts.get(name, UNKNOWN)
        pattern = turned(method.pattern, layout)
        try:
            units = pattern.units(shape)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        yield PlannedLayer(
            name=name,
            shape=shape,
            units=units,
            initial=pattern.kept(initial[name], shape),
            final=pattern.kept(final[name], shape),
            initial_density=initial[name],
            final_density=final[name],
            last=name == next(reversed(shapes)),
            after=after.get(name),
            layout=layout,
        )


def _connecting_ids(model: nn.Module) -> set[int]:
    """Return the ids of the parameters of connecting modules; not those tied to an embedding."""

    def held_by(kinds: tuple[type[nn.Module], ...], *, conv1d: bool = False) -> set[int]:
        modules = (
            module
            for module in model.modules()
            if isinstance(module, kinds) or (conv1d and is_conv1d(module))
        )
        return {
            id(parameter)
            for module in modules
            for name, parameter in module.named_parameters(recurse=False)
            if not name.startswith("bias")
        }

    # An output layer tied to an embedding is a table of word vectors first: to zero its entries
    # changes what words mean.
    return held_by(_CONNECTING, conv1d=True) - held_by(_TABLES)


def _normed_ids(model: nn.Module) -> set[int]:
    """Return the ids of the lengths and directions that ``torch.nn.utils.weight_norm`` makes."""
    pairs = (
        (module._parameters.get(f"{hook.name}_g"), module._parameters.get(f"{hook.name}_v"))
        for module in model.modules()
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, WeightNorm)
    )
    return {id(parameter) for pair in pairs for parameter in pair}


def _why_dense(
    model: nn.Module,
    name: str,
    parameter: nn.Parameter,
    included: Sequence[str],
    excluded: Sequence[str],
    connecting: set[int],
    normed: set[int],
    trained: bool,
) -> str | None:
    if any(fnmatchcase(name, glob) for glob in excluded):
        return "excluded"
    if included and not any(fnmatchcase(name, glob) for glob in included):
        return "not included"
    if parameter.ndim < 2:
        return "fewer than two dimensions"
    if not parameter.is_floating_point():
        return f"dtype {parameter.dtype}"
    if parameter.numel() == 0:
        return "no entries"
    if trained and not parameter.requires_grad:
        return "requires no gradient"
    kinds = parametrized_by(model, name) or ""
    if not included and (id(parameter) in normed or "_WeightNorm" in kinds.split(", ")):
        return (
            "part of a weight norm, by which an output without weights is NaN; include it by name"
        )
    if not included and kinds:
        return f"parametrized by {kinds}; remove that, or include it by name if it keeps zeros"
    if not included and id(parameter) not in connecting:
        return (
            "not of a linear, bilinear, convolution, attention or recurrent layer of torch; "
            "include it by name"
        )
    return None


def _check_layout(method: Method, name: str, dimensions: int, layout: Layout) -> None:
    """Raise ValueError if a pattern or a score goes by something a weight's layout does not say."""
    pattern = method.pattern
    say = (
        "say so by output_dim = 0 or 1 on the parameter (of experts in one tensor, output_dim = 1 "
    )
    say += "and input_dim = 2, or the other way round)"
    if pattern.by_output and layout.output is None:
        raise ValueError(
            f"pattern={pattern} does not fit {name}: it goes by outputs, and which dimension of "
            f"this weight that is is not known: {say}; exclude it or use Element(), Kernel() or "
            "Block(b)"
        )
    # A convolution over one dimension has as many dimensions as experts in one tensor.
    if isinstance(pattern, Kernel | Block) and layout == UNKNOWN and dimensions == 3:
        raise ValueError(
            f"pattern={pattern} does not fit {name}: whether its three dimensions are those of a "
            f"convolution or of experts in one tensor is not known: {say}; exclude it or use "
            "Element()"
        )
    for role in ("drop", "grow"):
        score = getattr(method, role, None)
        if layout.experts and score is not None and score.joins:
            raise ValueError(
                f"{role}={score!r} does not fit {name}: it reads which inputs and outputs the "
                "weights of one layer join, and this tensor holds several experts; exclude it or "
                "use another score"
            )


def _check_tables(model: nn.Module, method: Method, shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse tables whose gradients have a sparse layout, if gradients are to be read."""
    if not ("gradient" in method.signals or method.reserves):
        return
    for module_name, module in model.named_modules():
        name = f"{module_name}.weight".lstrip(".")
        if isinstance(module, _TABLES) and module.sparse and name in shapes:
            raise ValueError(
                f"{name} is of an {type(module).__name__} with sparse=True, which gives no "
                f"gradients to inactive weights, and {method.name} reads them: make it without "
                "sparse=True, or exclude it"
            )


def _globs(globs: Globs, argument: str) -> Sequence[str]:
    if globs is None or (argument == "exclude" and isinstance(globs, Sequence) and not globs):
        return ()
    if isinstance(globs, str):
        return (globs,)
    if not isinstance(globs, Sequence) or not globs or not all(isinstance(g, str) for g in globs):
        raise TypeError(f"{argument}={globs!r}: a glob or a sequence of globs, such as '*.weight'")
    return tuple(globs)
