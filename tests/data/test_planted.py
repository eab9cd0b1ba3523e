"""A file that would run code, in every format that is read: the code stays unrun."""

import io
import logging
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from regrow.adapters import transformers as transformers_adapter
from regrow.continual.streams import load_mini_imagenet
from regrow.data.arff import read_arff
from regrow.data.idx import read_idx
from regrow.data.npy import map_npy
from regrow.data.pickles import read_pickle
from regrow.data.pictures import open_rgb, read_image_parquet
from regrow.data.tables import read_csv, read_parquet
from regrow.data.trees import open_tree
from regrow.execution.export import load_packed
from regrow.features.data import read_mat
from regrow.lab.run import CHECKPOINT, Run
from regrow.segmentation.folders import Case
from regrow.segmentation.preprocessed import read_preprocessed
from regrow.segmentation.volumes import read_volume
from regrow.vision.data.video_file import read_frames

pytest.importorskip("pyarrow")
pytest.importorskip("PIL")


class Planted:
    def __init__(self, seen):
        self.seen = seen

    def __reduce__(self):
        return os.mkdir, (str(self.seen),)


@pytest.fixture
def seen(tmp_path):
    return tmp_path / "seen"


@pytest.fixture
def planted(seen):
    """A pickle that makes a folder, which it does where pickles are run."""
    content = pickle.dumps(Planted(seen))
    pickle.loads(content)
    assert seen.exists()
    seen.rmdir()
    return content


def refuse(read, *arguments):
    with pytest.raises((ValueError, OSError)):
        read(*arguments)


def as_npy(planted, seen):
    out = io.BytesIO()
    np.save(out, np.array([Planted(seen)], object), allow_pickle=True)
    return out.getvalue()


def as_npz(planted, seen):
    out = io.BytesIO()
    np.savez(out, X=np.array([Planted(seen)], object))
    return out.getvalue()


def as_prepared(planted, seen):
    out = io.BytesIO()
    np.savez(out, data=np.array([Planted(seen)], object), seg=np.zeros((1, 1, 1, 1), np.int8))
    return out.getvalue()


def as_checkpoint(planted, seen):
    out = io.BytesIO()
    torch.save({"state": Planted(seen), "metrics": 0}, out)
    return out.getvalue()


def as_old_checkpoint(planted, seen):
    out = io.BytesIO()
    torch.save({"state": Planted(seen)}, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def as_zip(planted, seen):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("__main__.py", f"import os; os.mkdir({str(seen)!r})")
        archive.writestr("data.pkl", planted)
    return out.getvalue()


def as_postscript(planted, seen):
    """A program that Pillow hands to Ghostscript, under the name of an image."""
    return (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
        + f"(%pipe%mkdir {seen}) (r) file\n%%EOF\n".encode()
    )


def as_playlist(planted, seen):
    """A list of other files, which FFmpeg would open, under the name of a video."""
    return b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"


def as_object_of_matlab(planted, seen):
    from scipy.io import savemat

    out = io.BytesIO()
    function = np.array([[f"@() mkdir('{seen}')"]], object)
    savemat(out, {"X": function, "Y": [1]})
    return out.getvalue()


def as_parquet(planted, seen):
    """Pickles in the metadata, where pandas and old pyarrow kept objects, and in a cell."""
    import pyarrow
    from pyarrow import parquet

    out = io.BytesIO()
    name = "ARROW:extension:name", "arrow.py_extension_type"
    extension = dict([name, ("ARROW:extension:metadata", planted)])
    kind = pyarrow.field("a", pyarrow.binary(), metadata=extension)
    schema = pyarrow.schema([kind], metadata={"pandas": planted})
    parquet.write_table(pyarrow.table({"a": [planted]}, schema=schema), out)
    return out.getvalue()


def as_images(planted, seen):
    import pyarrow
    from pyarrow import parquet

    out = io.BytesIO()
    row = {"bytes": as_postscript(planted, seen), "path": f"|mkdir {seen}"}
    table = pyarrow.table({"img": [row], "label": [0]})
    parquet.write_table(table.replace_schema_metadata({"huggingface": planted}), out)
    return out.getvalue()


def as_packed(planted, seen):
    return len(planted).to_bytes(8, "little") + planted


def as_text(planted, seen):
    run = f"__import__('os').mkdir({str(seen)!r})"
    return (
        f"filename,label\n=cmd|' /c mkdir {seen}',!!python/object/apply:os.mkdir [{run}]\n".encode()
    )


def as_attribute(planted, seen):
    run = f"__import__('os').mkdir({str(seen)!r})"
    return f"@attribute a real\n@data\n{run}\n".encode()


def of_pickle(path):
    return read_pickle(path.read_bytes(), str(path))


def of_image(path):
    return open_rgb(path, str(path))


def of_images(path):
    return read_image_parquet([path], "img", "label")


def of_run(path):
    path.rename(path.with_name(CHECKPOINT))
    return Run(path.parent).load()


def of_frames(path):
    pytest.importorskip("av")
    return read_frames(path, lambda total: [0])


def of_lists(path):
    path.rename(path.with_name("train.csv"))
    return load_mini_imagenet(path.parent, test_per_class=1)


def of_prepared(path):
    path = path.rename(path.with_name("a.npz"))
    return read_preprocessed(Case("a", (path,), path), 1, {0}, (1.0, 1.0, 1.0))


def of_volume(path):
    pytest.importorskip("nibabel")
    return read_volume(path.rename(path.with_name("a.nii")))


READERS = {
    "npy": (map_npy, [as_npy, as_npz]),
    "idx": (read_idx, [as_npy]),
    "cifar": (of_pickle, [lambda planted, seen: planted]),
    "csv": (read_csv, [lambda planted, seen: planted]),
    "arff": (read_arff, [as_attribute, lambda planted, seen: planted]),
    "parquet": (read_parquet, [as_parquet, as_npy]),
    "images": (of_images, [as_images, as_parquet]),
    "image": (of_image, [as_postscript, as_npy]),
    "video": (of_frames, [as_playlist, as_npy]),
    "mat": (read_mat, [as_object_of_matlab, as_npz, as_npy, lambda planted, seen: planted]),
    "packed": (load_packed, [as_packed, as_checkpoint, as_npz]),
    "prepared volumes": (of_prepared, [as_prepared, as_npz, as_npy]),
    "volumes": (of_volume, [as_npy, lambda planted, seen: planted]),
    "lists": (of_lists, [as_text]),
    "transformers": (transformers_adapter._load, [as_checkpoint, as_old_checkpoint]),
}


@pytest.mark.parametrize("name", READERS)
def test_what_is_planted_stays_unrun(tmp_path, planted, seen, name):
    read, makers = READERS[name]
    for number, make in enumerate(makers):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a").write_bytes(make(planted, seen))
        refuse(read, folder / "a")
        assert not seen.exists(), make


@pytest.mark.parametrize("make", [as_checkpoint, as_old_checkpoint])
def test_what_is_planted_in_a_checkpoint_stays_unrun(tmp_path, planted, seen, make, caplog):
    """It is damaged like any other that cannot be read: the trial starts anew, and says so."""
    (tmp_path / "a").write_bytes(make(planted, seen))
    with caplog.at_level(logging.WARNING):
        assert of_run(tmp_path / "a") is None
    assert "is damaged" in caplog.text
    assert not seen.exists()


def test_what_is_planted_in_an_archive_is_bytes(tmp_path, planted, seen):
    (tmp_path / "a.zip").write_bytes(as_zip(planted, seen))
    before = sorted(tmp_path.rglob("*"))
    tree = open_tree(tmp_path / "a.zip")
    assert tree.read("data.pkl") == planted and tree.names() == ["__main__.py", "data.pkl"]
    assert sorted(tmp_path.rglob("*")) == before
