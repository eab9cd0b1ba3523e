"""Downloads from a server of our own: whole and checked, or not there at all."""

import gzip
import hashlib
import http.server
import struct
import threading

import numpy as np
import pytest

from regrow.data import fashion_mnist
from regrow.data.download import Remote, fetch
from regrow.machine import cache_folder
from regrow.vision.data import cifar, load_data


@pytest.fixture
def server():
    """Serve what the test puts into ``files``; a path that ends in ``short`` breaks off."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = self.server.files.get(self.path)
            self.server.asked.append(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + 5 * self.path.endswith("short")))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.files, made.asked = {}, []
        made.url = f"http://127.0.0.1:{made.server_port}"
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def remote(server, path, content, algorithm="md5"):
    server.files[path] = content
    return Remote(server.url + path, hashlib.new(algorithm, content).hexdigest(), algorithm)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_file_comes_whole_and_is_announced(server, tmp_path, capsys, algorithm):
    content = bytes(range(256)) * 10_000
    path = fetch(remote(server, "/a/data.bin", content, algorithm), tmp_path / "new", "ask")
    assert path == tmp_path / "new" / "data.bin"
    assert path.read_bytes() == content
    assert capsys.readouterr().err == f"Downloading {server.url}/a/data.bin (3 MB)\n"


def refused(remote, folder, error, *said):
    with pytest.raises(error) as caught:
        fetch(remote, folder, "ask the publisher")
    for part in (remote.url, str(folder), "To get it by hand", "ask the publisher", *said):
        assert part in str(caught.value)
    assert not folder.is_dir() or not list(folder.iterdir())


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    wanted = remote(server, "/data.bin", b"right")
    server.files["/data.bin"] = b"wrong"
    found = hashlib.md5(b"wrong").hexdigest()
    refused(wanted, tmp_path / "x", ValueError, found, wanted.checksum)


def test_a_download_that_breaks_off_leaves_nothing(server, tmp_path):
    refused(
        remote(server, "/data.short", b"half"), tmp_path / "x", OSError, "broke off after 4 of 9"
    )


def test_a_file_that_is_not_there_is_told_of(server, tmp_path):
    refused(Remote(f"{server.url}/none", "0"), tmp_path / "x", OSError, "404")


def test_a_server_that_is_not_there_is_told_of(server, tmp_path):
    url = f"{server.url}/data"
    server.shutdown()
    server.server_close()
    refused(Remote(url, "0"), tmp_path / "x", OSError)


def test_a_folder_that_cannot_be_made_is_told_of(server, tmp_path):
    (tmp_path / "x").write_text("a file")
    refused(remote(server, "/data", b"right"), tmp_path / "x", OSError, "cannot be written")
    assert server.asked == []


@pytest.fixture
def cifar_archive(tmp_path, python2_pickle, pack_tar):
    files = {
        name: python2_pickle({"labels": [i], "data": np.full((1, 3072), i, np.uint8)})
        for i, name in enumerate((*cifar.CIFAR10.train, cifar.CIFAR10.test))
    }
    pack_tar(tmp_path / "made.tar.gz", files, cifar.CIFAR10.folders[0])
    return (tmp_path / "made.tar.gz").read_bytes()


@pytest.fixture
def published(server, cifar_archive, monkeypatch):
    """CIFAR-10 as if our server published it."""
    import dataclasses

    from regrow.vision.data import catalogue

    one = remote(server, "/cifar-10-python.tar.gz", cifar_archive)
    spec = dataclasses.replace(cifar.CIFAR10, remotes=(one, cifar.CIFAR10.remotes[1]))
    monkeypatch.setitem(catalogue._LOADERS, "cifar10", lambda p: cifar.load_cifar(spec, p))
    return server


def test_what_is_nowhere_is_downloaded_once(published, tmp_path):
    first = load_data("cifar10", tmp_path)
    assert first.train_labels.tolist() == [0, 1, 2, 3, 4]
    assert first.test_inputs.unique().tolist() == [5]
    again = load_data("cifar10", tmp_path, download=False)
    assert again.train_labels.tolist() == [0, 1, 2, 3, 4]
    assert published.asked == ["/cifar-10-python.tar.gz"]
    assert (cache_folder() / "cifar10" / "cifar-10-python.tar.gz").is_file()
    assert not (tmp_path / "cifar10").exists()


def test_nothing_is_downloaded_unless_allowed(published, tmp_path):
    with pytest.raises(FileNotFoundError):
        load_data("cifar10", tmp_path, download=False)
    assert published.asked == []


def test_what_is_there_is_not_downloaded(published, tmp_path, cifar_archive):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar-10-python.tar.gz").write_bytes(cifar_archive)
    load_data("cifar10", tmp_path)
    assert published.asked == []


def test_of_several_files_only_the_missing_are_downloaded(server, monkeypatch, tmp_path):
    def idx(array):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        return gzip.compress(head + array.astype(np.uint8).tobytes())

    remotes = {}
    for stem in fashion_mnist.FILES:
        array = np.zeros((2, 28, 28)) if "images" in stem else np.array([1, 2])
        remotes[stem] = remote(server, f"/{stem}.gz", idx(array))
    monkeypatch.setattr(fashion_mnist, "FILES", remotes)
    here = "train-images-idx3-ubyte.gz"
    (tmp_path / "fashion-mnist").mkdir()
    (tmp_path / "fashion-mnist" / here).write_bytes(server.files[f"/{here}"])
    assert load_data("fashion-mnist", tmp_path).test_labels.tolist() == [1, 2]
    assert len(server.asked) == 3
    assert f"/{here}" not in server.asked
