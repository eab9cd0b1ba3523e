"""What installs the library tells the truth: about kernels, extras and addresses."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from regrow import machine
from regrow.execution.csr import native
from tests.execution.test_csr_build import compiler

ROOT = Path(__file__).parents[1]
TEXTS = [
    *(path for path in ROOT.glob("*.md")),
    *(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
    *(ROOT / "src").rglob("*.py"),
    *(ROOT / "examples").rglob("*.py"),
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Run the hook over a small tree; return the build's data, the warnings and its folder."""
    pytest.importorskip(
        "hatchling", reason="hatchling is what builds wheels: pip install hatchling"
    )
    folder = tmp_path / "src/regrow/execution/csr"
    (folder / "kernels").mkdir(parents=True)
    source = ROOT / "src/regrow/execution/csr/build.py"
    (folder / "build.py").write_text(source.read_text().replace("_LIMIT = 300.0", "_LIMIT = 0.3"))
    (folder / "kernels/kernels.c").write_text("int regrow_one(void) { return 1; }\n")
    monkeypatch.delenv("REGROW_KERNELS", raising=False)

    def build():
        said, data = [], {"artifacts": []}
        hook = hooks().KernelsHook.__new__(hooks().KernelsHook)
        hook._BuildHookInterface__root = str(tmp_path)
        hook._BuildHookInterface__target_name = "wheel"
        hook._BuildHookInterface__app = SimpleNamespace(display_warning=said.append)
        hook.initialize("standard", data)
        return data, said

    build.kernels = folder / "kernels"
    return build


def hooks():
    pytest.importorskip(
        "hatchling", reason="hatchling is what builds wheels: pip install hatchling"
    )
    spec = importlib.util.spec_from_file_location("hatch_build_tested", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wheel_with_the_library_is_of_one_platform(built):
    data, said = built()
    assert not said and data["pure_python"] is False and data["tag"].startswith("py3-none-")
    assert data["artifacts"] == [f"src/regrow/execution/csr/kernels/{find(built)}"]


def find(built):
    return next(path.name for path in built.kernels.glob("libregrow.*"))


@pytest.mark.parametrize(
    ("body", "said", "calls"),
    [
        ("sleep 5", "had not ended after 0.3 s", 1),
        ("kill -9 $$", "killed by signal 9", 1),
        ("echo no such header; exit 1", "no such header", 2),  # with OpenMP and without
    ],
)
def test_a_compiler_that_fails_stops_the_build(built, tmp_path, monkeypatch, body, said, calls):
    """One that ran into its limit made a pure wheel, and pip hid the warning."""
    monkeypatch.setenv("CC", str(compiler(tmp_path / "cc", body)))
    with pytest.raises(RuntimeError, match=rf"(?s){said}.*REGROW_KERNELS=torch pip install \."):
        built()
    assert len((tmp_path / "cc/calls").read_text().splitlines()) == calls


def test_without_a_compiler_the_wheel_carries_the_reason(built, monkeypatch, caplog):
    monkeypatch.setenv("CC", "no-such-compiler")
    data, said = built()
    assert "tag" not in data and "no-such-compiler" in said[0]
    (artifact,) = data["artifacts"]
    assert artifact.endswith("kernels/not-built.txt")
    # and a user of that wheel reads it, where none can be compiled either
    monkeypatch.setattr(native.build, "SOURCES", built.kernels)
    monkeypatch.setattr(native, "_find", none_is_found)
    assert native.library.__wrapped__() is None
    assert "X (the wheel has none: there is no C compiler (no-such-compiler" in caplog.text
    monkeypatch.delenv("CC")
    built()
    assert not (built.kernels / "not-built.txt").exists()


@pytest.mark.parametrize(("value", "said"), [("native", "no C compiler"), ("fast", "not allowed")])
def test_what_is_asked_of_the_build_and_cannot_be_is_an_error(built, monkeypatch, value, said):
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("REGROW_KERNELS", value)
    with pytest.raises(RuntimeError, match=said):
        built()


def test_torch_alone_can_be_asked_for(built, monkeypatch):
    built()
    monkeypatch.setenv("REGROW_KERNELS", "torch")
    data, _ = built()
    assert "tag" not in data and not list(built.kernels.glob("libregrow.*"))


def none_is_found(again):
    raise native.NoLibraryError("X")


def test_links_of_the_readme_work_outside_the_repository():
    text, home = (ROOT / "README.md").read_text("utf-8"), "https://example.org/r"
    outside = hooks().outside
    relative = re.compile(r"\]\((?!https://|#)")
    assert relative.search(text) and not relative.search(outside(text, ""))
    linked = outside(text, home)
    assert not relative.search(linked)
    for target in re.findall(rf"\({home}/blob/main/([^)#]+)", linked):
        assert (ROOT / target).exists(), target
    assert outside("[a](https://x.org) [b](docs/c.md#d)", "") == "[a](https://x.org) b"
    assert set(hooks().addresses(home)) >= {"Source", "Documentation", "Issues"}
    assert hooks().addresses("") == {}


def test_no_text_names_a_package_of_an_index_that_is_not_ours():
    named = re.compile(r"pip3? install (?:-\S+ )*['\"]?regrow(?![\w.-])|['\"]regrow\[")
    assert named.search("pip install regrow") and named.search("pip install 'regrow[all]'")
    found = [str(path) for path in TEXTS if named.search(path.read_text("utf-8"))]
    assert not found


def test_every_extra_that_a_text_names_is_there():
    extras = set(PROJECT["optional-dependencies"])
    for path in TEXTS:
        for group in re.findall(r"\.\[([\w,]+)\]'", path.read_text("utf-8")):
            assert set(group.split(",")) <= extras, (path, group)
    code = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"(?:needed|how_to_install)\(\"[\w-]+\", \"(\w+)\"\)", code))
    assert len(named) > 5 and named <= extras


@pytest.mark.parametrize(
    ("version", "said"), [((3, 12), r"\.\[control\]"), ((3, 13), "take 3.11 or 3.12")]
)
def test_what_has_no_wheel_is_not_recommended(monkeypatch, version, said):
    monkeypatch.setattr(machine.sys, "version_info", version)
    assert re.search(said, machine.how_to_install("dm_control", "control"))
    assert ".[lab]" in machine.how_to_install("scipy", "lab")


def test_who_came_by_a_wheel_is_told_of_that_wheel_while_it_is_there(tmp_path, monkeypatch):
    wheel = tmp_path / "a b" / "regrow-1-py3-none-any.whl"
    wheel.parent.mkdir()
    origin = SimpleNamespace(read_text=lambda name: json.dumps({"url": wheel.as_uri()}))
    monkeypatch.setattr(machine, "distribution", lambda name: origin)
    checkout = "pip install scipy, or pip install '.[lab]' in a checkout of regrow"
    assert machine.how_to_install("scipy", "lab") == checkout
    wheel.touch()
    said = f"pip install scipy, or pip install '{wheel}[lab]'"
    assert machine.how_to_install("scipy", "lab") == said
    for other in (None, "{}", "not json", json.dumps({"url": tmp_path.as_uri()})):
        origin.read_text = lambda name, other=other: other
        assert machine.how_to_install("scipy", "lab") == checkout
