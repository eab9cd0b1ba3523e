"""Draws MuJoCo's scenes off screen: one GL context, one thread, for the whole process."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from regrow.machine import needed

__all__ = ["Look", "Painter", "gl_library", "painter"]

Ids = npt.NDArray[np.int32]
_T = TypeVar("_T")
_LIBRARIES = {
    "egl": ("libEGL.so.1", "libEGL.so"),
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
}
_PACKAGES = (
    "on Debian, apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri (EGL) or libosmesa6 (OSMesa); "
    "MUJOCO_GL=egl or MUJOCO_GL=osmesa chooses one"
)
_OTHER = -2  # what is seen there is a site or a tendon, and no geom


def gl_library() -> str:
    """Return which GL library draws: what ``$MUJOCO_GL`` says, or else the first that is there.

    Returns:
        "egl", which needs no screen and uses a GPU where there is one, "osmesa", which needs
        neither, or "glfw".

    Raises:
        ImportError: there is none; the message says which packages bring one.
    """
    said = os.environ.get("MUJOCO_GL", "").lower().strip()
    if said in (*_LIBRARIES, "glfw"):
        return said
    if said:
        raise ImportError(
            f"MUJOCO_GL={said} in the environment: nothing can be drawn; egl, osmesa and glfw can"
        )
    for name, files in _LIBRARIES.items():
        if any(_loads(file) for file in files):
            return name
    raise ImportError(f"no GL library is there, and pictures cannot be drawn: {_PACKAGES}")


def _loads(file: str) -> bool:
    try:
        ctypes.CDLL(file)
    except OSError:
        return False
    return True


def _open_context() -> Any:
    name = gl_library()
    with needed("mujoco", "control"):
        import mujoco  # noqa: PLC0415  an extra
    try:
        context = import_module(f"mujoco.{name}").GLContext(64, 64)
        context.make_current()
        # Without a screen glfw gives a context in which nothing can be drawn, and says nothing.
        empty = mujoco.MjModel.from_xml_string("<mujoco/>")
        mujoco.MjrContext(empty, mujoco.mjtFontScale.mjFONTSCALE_100).free()
    except Exception as error:  # of PyOpenGL, which raises what it likes
        said = f"GL by {name} cannot be started ({type(error).__name__}: {error}): {_PACKAGES}"
        raise ImportError(said) from error
    return context


class Painter:
    """A thread that holds the process's GL context, since one thread may use it at a time."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._contexts: list[Any] = []  # MuJoCo's, which belong to the GL context
        threading.Thread(target=self._work, name="regrow-painter", daemon=True).start()
        self._gl = self.do(_open_context)
        atexit.register(self._close)

    def do(self, work: Callable[[], _T]) -> _T:
        """Return what a function returns that draws; its errors are raised here."""
        future: Future[_T] = Future()
        self._tasks.put((future, work))
        return future.result()

    def open(self, model: Any) -> Any:
        """Return a context with a model's textures and buffers, ``mujoco.MjrContext``."""
        import mujoco  # noqa: PLC0415  an extra

        context = self.do(lambda: mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100))
        self._contexts.append(context)
        return context

    def free(self, context: Any) -> None:
        """Give a context back; nobody waits for it, since it may be a garbage collector's."""
        self._contexts.remove(context)
        self._tasks.put((Future(), context.free))

    def _work(self) -> None:
        while True:
            future, work = self._tasks.get()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            del future, work  # else what they hold is held until the next task

    def _close(self) -> None:
        """Free all at the process's end, in the thread where it was made: elsewhere GL fails."""
        if self.process != os.getpid():
            return
        for context in list(self._contexts):
            self.free(context)
        with contextlib.suppress(Exception):  # another library may have closed the display before
            self.do(self._gl.free)
        self._gl.free = lambda: None  # it is freed once more when it is collected


_PAINTERS: list[Painter] = []
_LOCK = threading.Lock()


def painter() -> Painter:
    """Return the process's painter, made at the first call.

    Raises:
        ImportError: there is no GL library.
        RuntimeError: the process was forked from one that draws.
    """
    with _LOCK:
        if not _PAINTERS:
            _PAINTERS.append(Painter())
    if _PAINTERS[0].process != os.getpid():
        raise RuntimeError(
            "this process was forked from one that draws, whose GL context it cannot use: start "
            'processes by multiprocessing.get_context("spawn")'
        )
    return _PAINTERS[0]


class Look:
    """What a model looks like: its textures, and how carefully it is drawn.

    Args:
        model: a ``mujoco.MjModel``, copied.
        size: pixels of a picture's side.
        fast: neither shadows nor reflections nor smooth edges.
    """

    def __init__(self, model: Any, size: int, *, fast: bool = False) -> None:
        import copy  # noqa: PLC0415

        import mujoco  # noqa: PLC0415  an extra

        self.model, self._size, self._mujoco = copy.copy(model), size, mujoco
        self.model.vis.global_.offwidth = self.model.vis.global_.offheight = size
        if fast:
            self.model.vis.quality.offsamples = self.model.vis.quality.shadowsize = 0
        self._painter = painter()
        self._context = self._painter.open(self.model)
        weakref.finalize(self, self._painter.free, self._context).atexit = False
        self._scene = mujoco.MjvScene(self.model, maxgeom=1000)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = not fast
        self._rect = mujoco.MjrRect(0, 0, size, size)

    def upload(self, texture: int) -> None:
        """Take over a texture of ``model`` that was changed; in the painter's thread only."""
        self._mujoco.mjr_uploadTexture(self.model, self._context, texture)

    def picture(self, model: Any, data: Any, camera: int) -> npt.NDArray[np.uint8]:
        """Draw; in the painter's thread only.

        Args:
            model: whose materials, sites and geoms are drawn, with the textures of this look.
            data: where they are.
            camera: its number.

        Returns:
            uint8, (size, size, 3).
        """
        self._update(model, data, camera)
        return self._draw()

    def ids(self, model: Any, data: Any, camera: int) -> Ids:
        """Return which geom is seen in each pixel; in the painter's thread only.

        Returns:
            int32, (size, size): a geom's number, −1 where nothing is, −2 for other objects.
        """
        flag = self._mujoco.mjtRndFlag
        telling_apart = [int(flag.mjRND_SEGMENT), int(flag.mjRND_IDCOLOR)]
        self._update(model, data, camera)
        self._scene.flags[telling_apart] = True
        try:
            colours = self._draw().astype(np.int32)
        finally:
            self._scene.flags[telling_apart] = False
        geoms = [g for g in self._scene.geoms[: self._scene.ngeom] if g.segid >= 0]
        names = np.full(max((g.segid for g in geoms), default=-1) + 2, -1, dtype=np.int32)
        for geom in geoms:
            is_geom = geom.objtype == self._mujoco.mjtObj.mjOBJ_GEOM
            names[geom.segid + 1] = geom.objid if is_geom else _OTHER
        ids: Ids = names[colours @ np.array([1, 256, 65536], dtype=np.int32)]
        return ids

    def _update(self, model: Any, data: Any, camera: int) -> None:
        mujoco = self._mujoco
        seen_by = mujoco.MjvCamera()
        seen_by.type, seen_by.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera
        everything = mujoco.mjtCatBit.mjCAT_ALL
        option = mujoco.MjvOption()
        mujoco.mjv_updateScene(model, data, option, None, seen_by, everything, self._scene)

    def _draw(self) -> npt.NDArray[np.uint8]:
        mujoco, drawn = self._mujoco, np.empty((self._size, self._size, 3), dtype=np.uint8)
        # Before each picture: GL draws into the buffer of whichever context was used last.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(drawn, None, self._rect, self._context)
        return drawn[::-1]
