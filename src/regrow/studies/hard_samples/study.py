"""Are sparse networks better at hard samples: hard in themselves, corrupted, attacked, or few?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from regrow.lab.charts import costs, curves, curves_of, palette, rows, rows_of, values_table
from regrow.lab.claims import Answer
from regrow.lab.effects import ACCURACY, EVERY, HIGHEST, LOWEST, Effect, Measure, level, percent
from regrow.lab.effects import gain as over_other
from regrow.lab.figures import Curves
from regrow.lab.learnt import Known
from regrow.lab.records import Record
from regrow.lab.rules import claim, each
from regrow.lab.section import Details, Section, Table
from regrow.lab.study import Study
from regrow.lab.view import View
from regrow.studies.hard_samples.design import ARMS, ATTACKED, PRESETS, hardest, random, severity

__all__ = ["CLAIMS", "STUDY"]

MARGIN = 1.0  # points of accuracy that matter
SPARSE = ("SET", "SNIP ratios")
CLEAN = percent("clean_accuracy", "accuracy on clean images")
ROBUST = percent("robust_accuracy", "accuracy on attacked images")


def gain(one: str, over: str = "dense", measure: Measure = ACCURACY, **at: Any) -> Effect:
    """Ask for a gain on the hardest half, mean over densities, unless labels say otherwise."""
    return over_other(one, over, measure, **{"condition": HALF, "density": EVERY} | at)


# ---------------------------------------------------------------------- claims

HALF, FIFTH, AS_MANY = str(hardest(0.5)), str(random(0.2)), str(random(0.5))
FIVE, TWO = str(severity(5)), str(severity(2))
_SOURCE = "Xiao et al. 2024"
# Of the condition that is hardest to learn from: dense networks reach more elsewhere.
KNOWN = [
    Known({"task": task, "arm": "dense"}, level, source, chance=10.0)
    for task, level, source in (
        ("MLP 300-100 on Fashion-MNIST", 78.8, "results/hard-samples, the hardest 30 %"),
        ("ResNet-18 on CIFAR-10", 65.8, "results/hard-samples, the hardest 30 %"),
    )
]
_ATTACK: dict[str, Any] = {"condition": str(ATTACKED), "density": 0.1}

CLAIMS = (
    claim(
        "On the hardest half of the samples sparse networks match or beat dense ones.",
        f"{_SOURCE}, on intrinsic hardness (figures only: half of the samples by EL2N)",
        each(SPARSE, gain),
        above=-MARGIN,
        answer=Answer(
            "on hard samples sparse networks are within a point of dense ones, or above",
            "on hard samples sparse networks are worse than dense ones",
        ),
        note="SNIP ratios are what the paper's code calls SNIP.",
    ),
    claim(
        "On the hardest half they beat dense ones where they are sparsest.",
        f"{_SOURCE}, on intrinsic hardness (SET and SNIP best, above all at high sparsity)",
        each(SPARSE, lambda arm: gain(arm, density=LOWEST)),
        above=0,
        answer=Answer(
            "where they are sparsest they are better",
            "where they are sparsest they are not better",
        ),
    ),
    claim(
        "With little data sparse networks beat dense ones.",
        f"{_SOURCE}, on the share of the data (20 %)",
        each(SPARSE, lambda arm: gain(arm, condition=FIFTH)),
        above=0,
    ),
    claim(
        "With little data they gain more the sparser they are.",
        f"{_SOURCE}, on the share of the data",
        each(
            SPARSE,
            lambda arm: (
                gain(arm, condition=FIFTH, density=LOWEST)
                - gain(arm, condition=FIFTH, density=HIGHEST)
            ),
        ),
        above=0,
    ),
    claim(
        "Under severe corruption, with all data, it is denser networks that gain.",
        f"{_SOURCE}, on common corruptions (severity 5)",
        gain("SET", condition=FIVE, density=HIGHEST) - gain("SET", condition=FIVE, density=LOWEST),
        above=0,
    ),
    claim(
        "The harder the corruption, the more sparse networks gain.",
        f"{_SOURCE}, appendix B (severity 2: about equal or worse; 4 and more: gains)",
        gain("SET", condition=FIVE) - gain("SET", condition=TWO),
        above=0,
    ),
    claim(
        "Trained adversarially, sparse networks are as accurate on clean images.",
        f"{_SOURCE}, on adversarial attacks (density 0.1)",
        each(SPARSE, lambda arm: gain(arm, **_ATTACK)),
        within=MARGIN,
    ),
    claim(
        "Trained adversarially, sparse networks are more robust.",
        f"{_SOURCE}, on adversarial attacks (density 0.1)",
        each(SPARSE, lambda arm: gain(arm, measure=ROBUST, **_ATTACK)),
        above=0,
        note="Images are attacked by 20 steps of projected gradient descent.",
    ),
    claim(
        "Networks denser in shallow layers are better: ERK beats uniform.",
        f"{_SOURCE}, on layer-wise density",
        gain("static ERK", "static uniform"),
        above=0,
    ),
    claim(
        "At high sparsity pruning needs the trained weights: OMP beats the lottery ticket.",
        f"{_SOURCE}, on layer-wise density (LTH declines, OMP does not)",
        gain("OMP", "LTH", density=LOWEST),
        above=0,
    ),
    claim(
        "What one-shot pruning gains is not its longer training.",
        "a control of ours",
        gain("OMP", "dense twice"),
        above=0,
        note="Dense twice goes on as OMP does, with nothing pruned.",
    ),
    claim(
        "Moving the topology is worth something on hard samples.",
        "a control of ours",
        gain("SET", "static ERK"),
        above=0,
    ),
    claim(
        "On hard samples a sparse network beats a dense one with as many parameters.",
        "a control of ours",
        gain("SET", "small dense"),
        above=0,
    ),
    claim(
        "It is the hardness: sparse networks gain more on hard samples than on as many others.",
        "a control of ours",
        each(SPARSE, lambda arm: gain(arm) - gain(arm, condition=AS_MANY)),
        above=0,
        answer=Answer(
            "they gain more on hard samples than on as many others",
            "they gain no more on hard samples than on as many others",
        ),
    ),
)

# ---------------------------------------------------------------------- figures

_COLOUR = palette(ARMS)
_GAIN = "points over dense"
_EXPLAINED = {
    "SNIP ratios": "SNIP ratios: a random topology with the layer densities that SNIP gives.",
    "small dense": "Small dense: a narrower dense network with no more parameters.",
    "dense twice": "Dense twice: a dense network trained as long as LTH and OMP.",
}


def by_condition(view: View) -> Iterator[Section]:
    """Draw what moving sparse networks gain over each control, condition by condition."""
    panels = {
        f"SET over {other}": rows_of(
            view, {name: gain("SET", other, condition=name) for name in _conditions(view)}
        )
        for other in ("dense", "static ERK", "small dense")
    }
    models = len(view.axis("task"))
    yield from rows(
        "What a moving sparse network gains, by what makes samples hard",
        "Test accuracy of SET less that of dense networks and of the controls, paired by seed, the "
        f"mean over densities{f' and {models} models' if models > 1 else ''}. The band is "
        f"±{MARGIN:g} point. Where training images are corrupted, test images are too.",
        panels,
        x="points of accuracy",
        band=MARGIN,
    )


def _conditions(view: View) -> list[str]:
    """Return conditions: what is hard by itself first, then as severity and attacks are added."""
    order = {
        labels["condition"]: (
            labels["attacked"],
            labels["severity"],
            labels["pick"],
            -float(labels["share"]),
        )
        for labels, _ in view.rows
    }
    return sorted(map(str, order), key=lambda name: order[name])


def by_density(view: View) -> Iterator[Section]:
    """Draw, side by side, the hardest shares and as many random samples."""
    for task, here in view.where(severity=0, attacked=False).by("task").items():
        for share in reversed(here.where(pick="hardest").axis("share")):
            panels, levels = {}, {}
            for condition in (str(hardest(share)), str(random(share))):
                panels[condition] = _gains(here, condition, here.axis("density"))
                levels[condition] = rows_of(
                    here, {"dense twice": over_other("dense twice", "dense", condition=condition)}
                )
            yield from _gain_curves(
                f"The hardest {100 * share:g} % of the samples: {task}",
                "What each method gains over the dense network on the same samples.",
                panels,
                "density",
                levels,
            )


def _gains(task: View, condition: str, densities: Sequence[float]) -> Curves:
    arms = [arm for arm in ARMS if arm not in ("dense", "dense twice")]
    return curves_of(
        task, lambda arm, density: gain(arm, condition=condition, density=density), arms, densities
    )


def by_amount(view: View) -> Iterator[Section]:
    """Draw gains by how many of the samples are learnt, a panel a density."""
    for task, here in view.where(severity=0, attacked=False, pick="random").by("task").items():
        places = {100 * share: str(random(share)) for share in here.axis("share")}
        yield from _gain_curves(
            f"How much data there is: {task}",
            "Random shares of the training samples.",
            _by_place(here, places),
            "per cent of the samples",
        )


def by_severity(view: View) -> Iterator[Section]:
    """Draw gains by how corrupted images are, a panel a density."""
    for task, every in view.where(attacked=False, pick="random").by("task").items():
        for share, here in reversed(every.by("share").items()):
            places = {float(n): str(severity(n, float(share))) for n in here.axis("severity")}
            if len(places) < 2:
                continue
            of = "" if share == 1 else f", {100 * float(share):g} % of the samples"
            yield from _gain_curves(
                f"How corrupted the images are: {task}{of}",
                "Every image, for training and for testing, is corrupted once, by one of the 15 "
                "common corruptions at this severity; 0 is clean.",
                _by_place(here, places),
                "severity",
            )


def _by_place(task: View, places: dict[float, str]) -> dict[str, Curves]:
    """Return a panel a density: what arms that were run at two places or more gain."""
    panels: dict[str, Curves] = {}
    for density in reversed(task.axis("density")):
        lines = curves_of(
            task,
            lambda arm, place, density=density: gain(  # type: ignore[misc]
                arm, condition=places[place], density=density
            ),
            [arm for arm in ARMS if arm not in ("dense", "dense twice")],
            places,
        )
        panels[f"density {density:g}"] = {n: line for n, line in lines.items() if len(line) > 1}
    return panels


def _gain_curves(
    title: str, text: str, panels: dict[str, Curves], x: str, levels: Any = None
) -> Iterator[Section]:
    drawn = {name for lines in panels.values() for name in lines}
    drawn |= {name for lines in (levels or {}).values() for name in lines}
    text = " ".join([text, *(words for name, words in _EXPLAINED.items() if name in drawn)])
    yield from curves(
        title,
        text,
        panels,
        x=x,
        y=_GAIN,
        colours=_COLOUR,
        levels=levels,
        zero=True,
        band="dense twice",
    )


def under_attack(view: View) -> Iterator[Section]:
    """Draw what arms gain in adversarial training, on clean and on attacked images."""
    for task, every in view.where(attacked=True).by("task").items():
        for condition, here in every.by("condition").items():
            at: dict[str, Any] = {"condition": condition}
            panels = {
                f"accuracy on {words} images": rows_of(
                    here,
                    {
                        f"{arm}, {density:g}": gain(arm, measure=measure, density=density, **at)
                        for arm in ARMS
                        for density in here.where(arm=arm).axis("density")
                    }
                    | {"dense twice": over_other("dense twice", "dense", measure, **at)},
                )
                for words, measure in {"clean": ACCURACY, "attacked": ROBUST}.items()
            }
            dense = here.where(arm="dense")
            clean, attacked = dense.mean(ACCURACY), dense.mean(ROBUST)
            if clean is None or attacked is None:
                continue
            of = str(condition).removesuffix(str(ATTACKED)).rstrip(", ")
            yield from rows(
                f"Adversarial training: {task}{of and f', {of}'}",
                f"The dense network reaches {clean.mean:.2f} % on clean and {attacked.mean:.2f} % "
                "on attacked test images. Differences to it at the density named, paired by seed. "
                + _attack_words(dense.records[0]),
                panels,
                x=_GAIN,
            )


def _attack_words(record: Record) -> str:
    attack = record.config["attack"]
    radius, step = (f"{255 * attack[name]:.3g}/255" for name in ("radius", "step"))
    return (
        f"Projected gradient descent in the maximum norm, radius {radius}, from a random start: "
        f"{attack['steps']} steps of {step} in training, {attack['test_steps']} in testing."
    )


# ---------------------------------------------------------------------- tables


def accuracies(view: View) -> Iterator[Section]:
    """Write all accuracies, condition by condition."""
    measures = {"": ACCURACY, ", on clean images": CLEAN, ", on attacked images": ROBUST}
    for task, every in view.by("task").items():
        details = []
        for condition in _conditions(every):
            here = every.where(condition=condition)
            densities = here.axis("density")
            for words, measure in measures.items():
                lines = {
                    arm: [level(arm, measure, density=d).maybe(here) for d in densities]
                    if arm not in ("dense", "dense twice")
                    else [here.where(arm=arm).mean(measure)] * len(densities)
                    for arm in ARMS
                }
                table = values_table(lines, [f"density {d:g}" for d in densities])
                if table.rows:
                    about = f"{condition}{words}: {_about(here.records[0])}"
                    details.append(Details(about, table=table))
        yield Section(
            f"All accuracies: {task}",
            "Test accuracy in per cent, mean ± half the 95 % interval (Student's t), and n. LTH "
            "and OMP train a dense network first, for as many epochs; dense twice goes on as OMP "
            "does, with nothing pruned.",
            details=details,
        )


def _about(record: Record) -> str:
    said = f"{record.get('train_samples'):,} samples, {record.get('epochs')} epochs"
    if record.get("pick") != "random":
        counts = record.get("class_counts")
        said += f", {min(counts):,} to {max(counts):,} of a class"
    return said


def layer_densities(view: View) -> Iterator[Section]:
    """Tell how dense each layer is at the least density, of the condition with most arms."""
    for task, every in view.by("task").items():
        condition, here = _with_most_arms(every)
        sparse = {
            arm: record
            for arm, record in _sparsest(here).items()
            if arm not in ("dense", "dense twice", "small dense") and record.result["densities"]
        }
        if not sparse:
            continue
        first, *_ = sparse.values()
        lines = [
            (layer, *(f"{r.result['densities'].get(layer, 1.0):.3f}" for r in sparse.values()))
            for layer in first.result["densities"]
        ]
        yield Section(
            f"Density of each layer: {task}, {condition}, density {here.axis('density')[0]:g}",
            "After training, of the first seed; layers from the input to the output. ERK decides "
            "those of SET and RigL, SNIP also those of SNIP ratios, magnitude those of GMP, OMP "
            "and LTH.",
            table=Table(("layer", *sparse), lines),
        )


def _with_most_arms(task: View) -> tuple[str, View]:
    by_name = {name: task.where(condition=name) for name in _conditions(task)}
    return max(by_name.items(), key=lambda item: len(item[1].axis("arm")))


def _sparsest(condition: View) -> dict[str, Record]:
    """Return each arm's record of the first seed at the least density; dense ones have none."""
    least = condition.where(density=(None, *condition.axis("density")[:1]))
    arms = {arm: least.where(arm=arm).records for arm in ARMS}
    return {arm: min(there, key=_seed) for arm, there in arms.items() if there}


def _seed(record: Record) -> int:
    return int(record.config["seed"])


def cost_tables(view: View) -> Iterator[Section]:
    """Tell what each arm costs at the least density, as a share of the dense network's."""
    fields = {
        "training FLOPs": _training_flops,
        "inference FLOPs": lambda record: record.get("inference_flops"),
        "bytes": lambda record: record.get("bytes_needed"),
    }
    for task, every in view.by("task").items():
        most, _ = _with_most_arms(every)
        compared: dict[str, tuple[Record | None, Record | None]] = {}
        for condition in _conditions(every):
            here = every.where(condition=condition)
            if condition != most and not here.where(attacked=True):
                continue
            chosen = _sparsest(here)
            dense = chosen.pop("dense", None)
            compared |= {f"{condition}: {arm}": (r, dense) for arm, r in chosen.items()}
        if table := costs(compared, fields):
            yield Section(
                f"What it costs, counted: {task}, least density",
                "As a fraction of the dense network's under the same condition. Training counts "
                "the attacks and, for LTH, OMP and dense twice, the dense network before; not the "
                "scores, which all trials share. Networks were trained under masks, which saves "
                "nothing: this is what active weights alone would take.",
                table=table,
            )


def _training_flops(record: Record) -> float:
    parts = ("training_flops", "attack_flops", "pretraining_flops")
    return sum(float(record.get(part) or 0.0) for part in parts)


STUDY = Study(
    name="hard-samples",
    title="Are sparse networks better at hard samples?",
    source="Xiao, Wu, Yin, Gadzinski, Huang, Pechenizkiy & Mocanu 2024, Are Sparse Neural Networks "
    "Better Hard Sample Learners? (BMVC, arXiv 2409.09196)",
    about="Sparse networks, moving and static, beside dense ones, on samples that are hard: the "
    "hardest by EL2N, few of them, corrupted ones, attacked ones. Controls: random shares of the "
    "same size, a static random topology, dense networks with as many parameters, clean accuracy. "
    "Differs from the paper: scores are means over several dense runs; each image is corrupted by "
    "one of 15 corruptions, drawn once, for training as for testing; SNIP is taken of the network "
    "as it was initialised and of its cross-entropy, and its own mask is run beside the random one "
    "with its layer densities (SNIP ratios), which the paper's code calls SNIP; topologies move 50 "
    "times a run, whatever its length; counts are exact, and optimizer state of grown weights "
    "starts at zero. The lottery ticket (LTH) and one-shot pruning (OMP) train a dense network "
    "first, in the same setting and as long: their runs take twice the others' steps, and a dense "
    "network that goes on as OMP does (dense twice) is their control. The quick "
    "preset trains on 400,000 samples a run instead of 10 million, with 3 steps of attack instead "
    "of 10; on CIFAR-10 it warms up for an epoch, and the rate falls along a cosine, not in steps.",
    presets=PRESETS,
    claims=CLAIMS,
    known=KNOWN,
    page=(
        by_condition,
        by_density,
        by_amount,
        by_severity,
        under_attack,
        accuracies,
        layer_densities,
        cost_tables,
    ),
)
