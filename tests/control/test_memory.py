"""What fits into memory: what the system says is free, in a container too, and what is refused."""

import pytest
import torch

from regrow.control import memory
from regrow.control.replay import Replay
from regrow.machine import free_memory, naming

MB = 1 << 20


@pytest.fixture
def machine(tmp_path):
    """Return a function that writes what Linux tells, and returns what is then free."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return free_memory(tmp_path)

    return write


def group(limit, used, cached, version=2):
    """Return the files of a control group, with sizes in MB."""
    names = {
        2: ("memory.max", "memory.current", "inactive_file"),
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }[version]
    limit = limit if limit == "max" else limit * MB
    texts = (f"{limit}\n", f"{used * MB}\n", f"anon 1\n{names[2]} {cached * MB}\n")
    return dict(zip((*names[:2], "memory.stat"), texts, strict=True))


def under(folder, files):
    return {f"{folder}/{name}": text for name, text in files.items()}


HOST = {"proc/meminfo": f"MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:  {900 * 1024} kB\nHuge: 0\n"}
ROOT = "sys/fs/cgroup"


def test_files_that_are_kept_in_memory_give_way(machine):
    assert machine(HOST) == 900 * MB


@pytest.mark.parametrize(
    ("groups", "left"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", **under(f"{ROOT}/a/b", group(500, 300, 100))}, 300),
        ({"proc/self/cgroup": "0::/a/b\n", **under(f"{ROOT}/a/b", group("max", 300, 100))}, 900),
        # One around it is tighter; and of what is around a container it sees its own as the root.
        ({"proc/self/cgroup": "0::/a/b\n", **under(f"{ROOT}/a/b", group(500, 300, 100)),
          **under(f"{ROOT}/a", group(400, 380, 100))}, 120),
        ({"proc/self/cgroup": "0::/elsewhere\n", **under(ROOT, group(500, 300, 100))}, 300),
        ({"proc/self/cgroup": "0::/\n", **under(ROOT, group(200, 300, 0))}, 0),
        ({"proc/self/cgroup": "4:memory:/x\n3:cpuset:/\n",
          **under(f"{ROOT}/memory/x", group(500, 300, 100, 1))}, 300),
        ({"proc/self/cgroup": "no line\n"}, 900),
    ],
)  # fmt: skip
def test_limits_of_containers_count(machine, groups, left):
    assert machine(HOST | groups) == left * MB


def test_a_system_that_tells_nothing_refuses_nothing(machine, monkeypatch):
    assert machine({}) is None
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    memory.check_memory(10**12, 10**6, "cpu")


def test_this_machine_tells():
    assert MB < free_memory() < 1 << 50


def test_a_replay_of_runs_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    each = 4 * (2 * 100 + 6 + 4) + 8
    monkeypatch.setattr(memory, "free_memory", lambda: 2 * 500 * each / 0.9)
    replay = Replay(2, 500, 100, 6, "cpu")
    tensors = [v for v in vars(replay).values() if isinstance(v, torch.Tensor) and v.numel() > 2]
    assert sum(t.nbytes for t in tensors) == 2 * 500 * each  # is what was counted
    with pytest.raises(ValueError, match=r"replay=501: .* in each of 2 runs .*replay=500 fits"):
        Replay(2, 501, 100, 6, "cpu")


def test_what_a_training_of_before_still_holds_is_let_go_first(monkeypatch):
    said = iter([10, 1000])
    monkeypatch.setattr(memory, "free_memory", lambda: next(said))
    memory.check_memory(10, 10, "cpu")


def test_an_error_of_what_is_written_names_the_file(tmp_path):
    path = tmp_path / "agent.pt"
    with pytest.raises(OSError, match=r"No space left on device: '.*agent\.pt'"), naming(path):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="another"), naming(path):
        raise FileNotFoundError(2, "No such file", "another")
