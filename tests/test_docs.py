"""The documentation runs: its examples do what the pages say, and every method has a page."""

import doctest
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import regrow

DOCS = Path(__file__).parents[1] / "docs"
README = DOCS.parent / "README.md"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
BLOCK = re.compile(r"^```(python|pycon|\{code-cell\} python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITH_EXAMPLES = [path for path in PAGES if BLOCK.search(path.read_text("utf-8"))]
PARTS = ("about", "facts", "defaults", "differences")


def named(path):
    return str(path.relative_to(DOCS))


# Beside shorter pages of the same: features.md, pruning.md, studies/writing.md. `make docs` runs
# these, too.
LONG = {"tutorials/features.md", "tutorials/prune.md", "tutorials/study.md"}


def examples():
    for path in WITH_EXAMPLES:
        yield pytest.param(path, marks=[pytest.mark.long] * (named(path) in LONG))


@pytest.fixture
def drawn_nowhere(monkeypatch):
    """Notebooks draw: without a window, and no figure stays."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.usefixtures("drawn_nowhere")
@pytest.mark.parametrize("path", list(examples()), ids=named)
def test_examples_run_and_show_what_they_say(path, tmp_path, monkeypatch):
    if path.stem in ("adapters", "samples"):
        pytest.importorskip("lightning", reason="needs the extra regrow[lightning]")
        pytest.importorskip("transformers", reason="needs the extra regrow[transformers]")
    monkeypatch.chdir(tmp_path)
    text, names = path.read_text("utf-8"), {"__name__": "example"}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(2))
        if block[1] != "pycon":  # blocks of a page follow one another
            exec(compile("\n" * line + block[2], str(path), "exec"), names)
            continue
        shown = doctest.DocTestParser().get_doctest(block[2], names, path.name, str(path), line)
        shown.globs = names  # not a copy: functions of earlier blocks see what is bound here
        said = []
        doctest.DocTestRunner(verbose=False).run(shown, out=said.append, clear_globs=False)
        assert not said, "".join(said)


@pytest.mark.parametrize("name", regrow.METHODS)
def test_every_registered_method_has_a_page_that_is_listed(name):
    page = (DOCS / "methods" / f"{name}.md").read_text("utf-8")
    assert page.startswith(f"# {name}\n")
    for part in PARTS:
        assert f"```{{of-method}} {name} {part}\n" in page
    assert f"regrow.{name}(" in page
    assert f"\n{name}\n" in (DOCS / "methods" / "index.md").read_text("utf-8")


def test_no_page_is_of_a_method_that_is_not_there():
    pages = {path.stem for path in (DOCS / "methods").glob("*.md")} - {"index"}
    assert pages == set(regrow.METHODS)


def test_what_the_readme_names_is_there_with_one_import():
    """It named regrow.measure.flops and regrow.execution.export, which regrow did not bring."""
    text = README.read_text("utf-8")
    names = set(re.findall(r"`(regrow(?:\.\w+)+)\b", text))
    called = [name for name in names if callable(pkgutil.resolve_name(name))]
    assert {"regrow.measure.flops.count_flops", "regrow.execution.export.dense_state_dict"} <= set(
        called
    )
    listed = [name.removeprefix("regrow.") for name in called]
    code = f"import operator, regrow; [operator.attrgetter(n)(regrow) for n in {listed}]"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_readme_counts_flops_and_bytes_as_it_says():
    model = torch.nn.Linear(8, 4, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = regrow.sparsify(model, optimizer, regrow.Static(density=0.5), total_steps=2)
    count = regrow.measure.flops.count_flops(model, torch.ones(1, 8))
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    assert regrow.measure.flops.training_flops(count, sparse) == 64  # half of 64 + 64
    assert regrow.measure.memory.bytes_allocated(model, optimizer).weights == 128
    assert regrow.measure.memory.bytes_of_nonzeros(model, optimizer, sparse).weights == 64
