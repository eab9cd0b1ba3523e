"""One painter a process: looks come and go, threads ask, libraries are missing."""

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from regrow.control.distractions import painter as module
from regrow.control.distractions.painter import Look, gl_library, painter


def test_looks_that_go_leave_the_others_alone(pixels):
    """A mujoco.Renderer that replaces another spoils its pictures."""
    environments = pixels("walker-walk")
    first = environments.reset()
    scene = environments._scenes[0]
    for size in (16, 64, 16):
        other = Look(scene.model, size, fast=size == 16)
        picture = painter().do(lambda look=other: look.picture(scene.model, scene.data, 0))
        assert picture.shape == (size, size, 3) and picture.std() > 5
        assert np.array_equal(environments.observe(), first)
        del other
        assert np.array_equal(environments.observe(), first)
    again = pixels("walker-walk")
    assert np.array_equal(again.reset(), first)


def test_contexts_of_looks_that_went_are_freed(pixels):
    before = len(painter()._contexts)
    environments = pixels(mode="color_easy")
    for _ in range(5):
        environments.reset()
    assert len(painter()._contexts) <= before + 2
    del environments
    import gc

    gc.collect()
    assert len(painter()._contexts) <= before


def test_threads_may_ask(pixels):
    environments = pixels("finger-spin")
    first = environments.reset()
    with ThreadPoolExecutor(3) as pool:
        seen = list(pool.map(lambda _: environments.observe(), range(9)))
    assert all(np.array_equal(one, first) for one in seen)


def test_errors_of_the_painters_thread_are_raised_where_it_was_asked(gl):
    with pytest.raises(ZeroDivisionError):
        painter().do(lambda: 1 // 0)
    assert painter().do(lambda: 7) == 7


def test_the_scene_is_not_changed_by_a_look(pixels):
    scene = pixels()._scenes[0]
    before = copy.copy(scene.model.vis.quality.offsamples), scene.model.vis.global_.offwidth
    Look(scene.model, 16, fast=True)
    assert (scene.model.vis.quality.offsamples, scene.model.vis.global_.offwidth) == before


def test_without_a_gl_library_its_packages_are_named(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(module, "_loads", lambda file: False)
    with pytest.raises(ImportError, match="apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri"):
        gl_library()
    monkeypatch.setattr(module, "_loads", lambda file: "OSMesa" in file)
    assert gl_library() == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "egl")
    assert gl_library() == "egl"
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(ImportError, match="MUJOCO_GL=disable"):
        gl_library()


def test_a_library_that_does_not_start_is_told(gl, monkeypatch):
    def fails(*_):
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")

    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(module, "import_module", fails)
    with pytest.raises(ImportError, match=r"GL by egl cannot be started .*eglQueryString.*libegl1"):
        module._open_context()


def test_a_context_in_which_nothing_can_be_drawn_is_told():
    """As of glfw without a screen, which only warns."""
    pytest.importorskip("mujoco")
    nothing = """
import sys, types
import regrow.control.distractions.painter as painter
class GLContext:
    def __init__(self, *size): pass
    def make_current(self): pass
painter.import_module = lambda name: types.SimpleNamespace(GLContext=GLContext)
try:
    painter.painter()
except ImportError as error:
    print(error)
"""
    environment = {**os.environ, "MUJOCO_GL": "glfw"}
    command = [sys.executable, "-c", nothing]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.startswith("GL by glfw cannot be started"), done.stdout + done.stderr


def test_a_forked_process_is_refused(gl, monkeypatch):
    monkeypatch.setattr(painter(), "process", -1)
    with pytest.raises(RuntimeError, match=r"forked from one that draws.*spawn"):
        painter()
