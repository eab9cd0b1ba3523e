"""What every test takes for granted."""

import gc
import io
import os
import socket
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# Tests share modules, `from tests.malformed import ...`, however pytest is started.
sys.path.insert(0, str(Path(__file__).parents[1]))

# One run of the suite is like another; HYPOTHESIS_PROFILE=explore searches where none has looked.
_SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much]
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("explore", deadline=None, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

torch.set_num_threads(1)  # before the fixtures of modules, too: threads change the order of sums

# What is imported and collected stays: looking for garbage among it takes as long as the rest.
gc.disable()


def pytest_collection_finish():
    """Leave what stays to the end, modules and tests, out of every garbage collection to come."""
    gc.enable()
    gc.collect()
    gc.freeze()


# For each of the devices that are not there, torch.manual_seed writes down the whole stack.
_SEED = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed


@pytest.fixture(autouse=True)
def _one_thread_and_one_seed():
    torch.set_num_threads(1)
    _SEED(0)


@pytest.fixture(scope="session")
def real_data() -> str:
    """The folder of real data sets; tests that need one are skipped without it."""
    folder = os.environ.get("REGROW_DATA")
    if not folder:
        pytest.skip("REGROW_DATA is not set: it names the folder that holds the data sets")
    return folder


@pytest.fixture
def alone(monkeypatch, tmp_path_factory):
    """Nothing outside the test is read or written, and nobody but this machine is asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("REGROW_DATA", raising=False)
    monkeypatch.setattr("regrow.data.places._SYSTEM", "/nowhere")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    connect = socket.create_connection

    def only_here(address, *args, **kwargs):
        assert address[0] == "127.0.0.1", f"a test asks {address[0]}"
        return connect(address, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", only_here)


def _picture(pixels, kind="PNG", mode="RGB") -> bytes:
    """Encode an image; pixels of shape (h, w, 3), or one colour for 32×32."""
    from PIL import Image

    image = (
        Image.new("RGB", (32, 32), pixels) if isinstance(pixels, tuple) else Image.fromarray(pixels)
    )
    out = io.BytesIO()
    image.convert(mode).save(out, kind)
    return out.getvalue()


def _python2_pickle(content: dict) -> bytes:
    """Write a dictionary as Python 2's cPickle did, protocol 2: what the published files are."""
    return b"\x80\x02" + _py2(content) + b"."


def _py2(value) -> bytes:
    if isinstance(value, np.ndarray):
        dtype = b"cnumpy\ndtype\n" + _py2("u1") + b"K\x00K\x01\x87R"
        dtype += b"(K\x03" + _py2("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _py2("b")
        state = b"(K\x01" + b"".join(map(_py2, value.shape))
        state += {1: b"\x85", 2: b"\x86"}[value.ndim] + dtype + b"\x89" + _py2(value.tobytes())
        return made + b"\x87R" + state + b"tb"
    if isinstance(value, dict):
        return b"}(" + b"".join(_py2(k) + _py2(v) for k, v in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_py2, value)) + b"e"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    text = value.encode() if isinstance(value, str) else value
    return b"T" + struct.pack("<i", len(text)) + text


def _pack_tar(path: Path, files: dict[str, bytes], folder: str = "") -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}" if folder else name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def picture():
    return _picture


@pytest.fixture
def python2_pickle():
    return _python2_pickle


@pytest.fixture
def pack_tar():
    return _pack_tar


@pytest.fixture(scope="module")
def whole_numbers():
    """Triton 3.6 takes arrays of one number for numbers, which numpy refuses from 2.4 on."""
    from triton.runtime import interpreter

    before = interpreter._patch_lang_tensor

    def patched(tensor, *scope):
        before(tensor, *scope)
        tensor.__index__ = lambda self: self.handle.data.item()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang_tensor", patched)
        yield
