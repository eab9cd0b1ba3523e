"""Folders of data sets: which cases, which labels; and cases that are unfit."""

import json
import os
import pickle

import numpy as np
import pytest

from regrow.reading import UnreadableError
from regrow.segmentation.data import fingerprint
from regrow.segmentation.folders import open_folder, volumes_in
from regrow.segmentation.labels import LABEL_MAPS, of_regions, regions_of
from regrow.segmentation.survey import plan, read, survey
from tests.segmentation.phantoms import affine_of, phantom, save

pytest.importorskip("nibabel", reason="needs the extra regrow[segmentation]")


def write_json(folder, name="dataset.json", **listed):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(listed))
    return folder


def test_a_decathlon_folder(decathlon):
    folder = open_folder(decathlon)
    assert [case.name for case in folder.cases] == [f"organ_{i:03}" for i in range(6)]
    assert folder.labels == {0: "background", 1: "front", 2: "back"}
    assert folder.channels == ("CT",)
    volume = read(folder.cases[3], folder)
    image, labels = phantom(3)
    np.testing.assert_array_equal(volume.image[0], image.T)
    np.testing.assert_array_equal(volume.labels, labels.T)


def test_what_a_mac_hides_in_a_folder_is_no_volume(decathlon, tmp_path):
    """Archives of the Decathlon and others hold a file ._NAME for every file NAME."""
    for path in [*decathlon.rglob("*.nii.gz"), decathlon / "dataset.json"]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert len(open_folder(decathlon).cases) == 6
    assert [file.name for file in volumes_in(decathlon / "labelsTr")] == [
        f"organ_{i:03}.nii.gz" for i in range(6)
    ]
    assert volumes_in(decathlon / "none") == []
    # nnU-Net's own folders.
    for part in ("imagesTr", "labelsTr"):
        for path in (decathlon / part).iterdir():
            number = "_0000" if part == "imagesTr" else ""
            path.rename(path.with_name(path.name.replace(".nii", f"{number}.nii")))
    labels = {"background": 0, "front": 1, "back": 2}
    write_json(decathlon, labels=labels, channel_names={"0": "CT"}, file_ending=".nii.gz")
    assert [case.name for case in open_folder(decathlon).cases] == [
        f"organ_{i:03}" for i in range(6)
    ]


def test_what_a_mac_hides_beside_preprocessed_volumes_is_passed_over(tmp_path):
    image, labels = preprocessed(tmp_path)
    np.savez_compressed(tmp_path / "made" / "a.npz", data=image, seg=labels)
    for path in [*tmp_path.rglob("*.npz"), *tmp_path.glob("*Plans.json")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert [case.name for case in open_folder(tmp_path).cases] == ["a"]


def test_a_list_of_nnunets_first_version_leaves_the_numbers_of_channels_out(decathlon):
    listed = json.loads((decathlon / "dataset.json").read_text())
    write_json(decathlon, **listed | {"modality": {"0": "T1", "1": "T2"}})
    for path in [*(decathlon / "imagesTr").iterdir()]:
        (second := path.with_name(path.name.replace(".nii", "_0001.nii"))).write_bytes(
            path.read_bytes()
        )
        path.rename(second.with_name(path.name.replace(".nii", "_0000.nii")))
    folder = open_folder(decathlon)
    assert [case.name for case in folder.cases] == [f"organ_{i:03}" for i in range(6)]
    assert read(folder.cases[2], folder).image.shape == (2, 14, 12, 10)
    (decathlon / "imagesTr" / "organ_002_0001.nii.gz").unlink()
    [left] = survey(open_folder(decathlon)).left_out
    assert left.name == "organ_002" and "organ_002_0001.nii.gz: no such file" in left.why


def test_tests_are_judged_where_their_labels_are_there(decathlon):
    """AMOS lists labelled cases as its validation, nnU-Net puts labels of tests into labelsTs."""
    listed = json.loads((decathlon / "dataset.json").read_text())
    *training, validated, tested = listed["training"]
    (decathlon / "labelsTs").mkdir()
    (decathlon / tested["label"]).rename(decathlon / "labelsTs" / "organ_005.nii.gz")
    entries = {"validation": [validated], "test": [tested["image"], "./imagesTs/x.nii.gz"]}
    # Lists of others name the files of training as validation, too.
    entries["validation"].append({"image": training[0]["image"]})
    write_json(decathlon, **listed | {"training": training} | entries)
    folder = open_folder(decathlon)
    assert [case.name for case in folder.cases] == [f"organ_{i:03}" for i in range(4)]
    assert [(case.name, case.label is None) for case in folder.tests] == [
        ("organ_004", False),
        ("organ_005", False),
        ("x", True),
    ]
    assert [case.name for case in folder.judged] == [f"organ_{i:03}" for i in range(6)]


def test_regions_of_brain_tumours_as_the_decathlon_lists_them(decathlon):
    """As the documentation has them; they are those of the map of published labels."""
    listed = json.loads((decathlon / "dataset.json").read_text())
    regions = {"whole tumour": [1, 2, 3], "tumour core": [2, 3], "enhancing tumour": 3}
    labels = {"background": 0, **regions}
    write_json(decathlon, **listed | {"labels": labels, "regions_class_order": [1, 2, 3]})
    folder = open_folder(decathlon)
    assert dict(folder.regions) == dict(LABEL_MAPS["brats-decathlon"].regions)
    assert folder.labels == {
        0: "background",
        1: "rest of whole tumour",
        2: "rest of tumour core",
        3: "enhancing tumour",
    }
    values = np.arange(4)
    masks = regions_of(values, folder.regions)
    assert of_regions(masks, folder.written).tolist() == values.tolist()


def test_labels_of_nnunets_tests_are_found(tmp_path):
    image, labels = phantom(0)
    for place in ("imagesTr/a_0000", "imagesTs/t_0000", "imagesTs/u_0000"):
        save(tmp_path / f"{place}.nii.gz", image)
    for place in ("labelsTr/a", "labelsTs/t"):
        save(tmp_path / f"{place}.nii.gz", labels)
    write_json(tmp_path, channel_names={"0": "T1"}, labels={"background": 0, "a": 1, "b": 2})
    folder = open_folder(tmp_path)
    assert [case.name for case in folder.tests] == ["t", "u"]
    assert [case.name for case in folder.judged] == ["a", "t"]


def test_volumes_of_another_ending_than_the_list_says_are_named(tmp_path):
    save(tmp_path / "imagesTr" / "a_0000.nii.gz", phantom(0)[0])
    write_json(
        tmp_path, channel_names={"0": "T1"}, labels={"background": 0, "a": 1}, file_ending=".nii"
    )
    said = r"end in \.nii, and not so does a_0000\.nii\.gz: mend its file_ending"
    with pytest.raises(UnreadableError, match=said):
        open_folder(tmp_path)


def test_the_real_hippocampus_is_read(real_data):
    folder = open_folder(f"{real_data}/hippocampus")
    known = survey(folder)
    assert len(known.facts) == 260
    assert not known.left_out
    assert {fact.values for fact in known.facts.values()} == {frozenset({0, 1, 2})}
    how = plan(folder, known, list(known.facts))
    assert (how.spacing, how.masked) == ((1.0, 1.0, 1.0), False)


def test_an_nnunet_folder_of_two_channels_and_regions(tmp_path):
    image, labels = phantom(0)
    for name in ("b_1", "a"):
        save(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", image)
        save(tmp_path / "imagesTr" / f"{name}_0001.nii.gz", image + 1)
        save(tmp_path / "labelsTr" / f"{name}.nii.gz", labels)
    save(tmp_path / "imagesTs" / "t_0000.nii.gz", image)
    write_json(
        tmp_path,
        channel_names={"0": "T1", "1": "FLAIR"},
        labels={"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        regions_class_order=[1, 2],
        file_ending=".nii.gz",
    )
    folder = open_folder(tmp_path)
    assert [case.name for case in folder.cases] == ["a", "b_1"]
    assert [case.name for case in folder.tests] == ["t"]
    assert folder.labels == {0: "background", 1: "rest of whole", 2: "core"}
    assert folder.regions == {"whole": (1, 2), "core": (2,)}
    assert folder.written == (1, 2)
    assert (folder.ignore, folder.values) == (3, {0, 1, 2, 3})
    volume = read(folder.cases[1], folder)
    np.testing.assert_allclose(volume.image[1] - volume.image[0], 1, rtol=1e-4)


def test_nnunets_own_list_of_files_is_followed(tmp_path):
    image, labels = phantom(0)
    save(tmp_path / "x" / "one.nii.gz", image)
    save(tmp_path / "y" / "two.nii.gz", labels)
    dataset = {"c": {"images": ["x/one.nii.gz"], "label": "y/two.nii.gz"}}
    labels = {"background": 0, "a": 1, "b": 2}
    write_json(tmp_path, channel_names={"0": "CT"}, labels=labels, dataset=dataset)
    (tmp_path / "imagesTr").mkdir()
    folder = open_folder(tmp_path)
    assert read(folder.cases[0], folder).name == "c"


def preprocessed(folder, **more):
    write_json(
        folder, channel_names={"0": "CT"}, labels={"background": 0, "front": 1, "back": 2}, **more
    )
    configurations = {"3d_fullres": {"data_identifier": "made", "spacing": [2.0, 1.0, 1.0]}}
    write_json(folder, "nnUNetPlans.json", configurations=configurations)
    (folder / "made").mkdir()
    image, labels = phantom(0)
    labels = labels.astype(np.int16)
    labels[0] = -1
    return image[None], labels[None]


def test_what_nnunet_has_preprocessed_without_running_its_pickles(tmp_path):
    image, labels = preprocessed(tmp_path)
    np.savez_compressed(tmp_path / "made" / "a.npz", data=image, seg=labels)

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    (tmp_path / "made" / "a.pkl").write_bytes(pickle.dumps(Bomb()))
    np.savez(tmp_path / "made" / "b.npz", data=np.array([Bomb()], object), seg=labels)
    folder = open_folder(tmp_path)
    known = survey(folder)
    assert list(known.facts) == ["a"]
    assert [out.name for out in known.left_out] == ["b"]
    assert not (tmp_path / "ran").exists()
    volume = read(folder.cases[0], folder)
    assert volume.grid.spacing == (2.0, 1.0, 1.0)
    np.testing.assert_array_equal(volume.image, image)
    np.testing.assert_array_equal(volume.labels, labels[0].clip(0))


@pytest.mark.parametrize(
    ("image", "labels", "said"),
    [
        (lambda a: a + 1j, lambda a: a, "an image of complex64"),
        (lambda a: a, lambda a: a.astype("S1"), r"labels of \|S1"),
        (lambda a: a * 1e39, lambda a: a, "not finite"),
        (lambda a: a, lambda a: a + 0.5, "which are none of"),
    ],
)
def test_preprocessed_values_are_numbers_that_float32_holds(tmp_path, image, labels, said):
    """Imaginary parts were left off, and what float32 cannot hold became infinite."""
    data, seg = preprocessed(tmp_path)
    values = image(data.astype(np.float64 if "finite" in said else np.float32))
    np.savez(tmp_path / "made" / "a.npz", data=values, seg=labels(seg))
    folder = open_folder(tmp_path)
    with pytest.raises(UnreadableError, match=said):
        read(folder.cases[0], folder)


def test_volumes_of_nnunet_in_blosc(tmp_path):
    blosc2 = pytest.importorskip("blosc2", reason="needs the extra regrow[nnunet]")
    image, labels = preprocessed(tmp_path)
    for name, array in (("a", image), ("a_seg", labels)):
        blosc2.asarray(array, urlpath=str(tmp_path / "made" / f"{name}.b2nd"))
    folder = open_folder(tmp_path)
    assert [case.name for case in folder.cases] == ["a"]
    np.testing.assert_array_equal(read(folder.cases[0], folder).image, image)
    file = tmp_path / "made" / "a.b2nd"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UnreadableError, match=r"a\.b2nd is damaged"):
        read(folder.cases[0], folder)


def test_without_blosc_one_is_told_how_to_install_it(tmp_path, monkeypatch):
    preprocessed(tmp_path)
    (tmp_path / "made" / "a.b2nd").write_bytes(b"x")
    folder = open_folder(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "blosc2", None)
    with pytest.raises(ImportError, match=r"pip install blosc2"):
        read(folder.cases[0], folder)


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ({"labels": {"0": "background"}}, "channel_names or modality must be a mapping"),
        ({"modality": {"0": "CT"}}, "labels must be a mapping"),
        ({"modality": {"0": "CT"}, "labels": {"1": "a"}}, "labels must name 0"),
        ({"modality": {"1": "CT"}, "labels": {"0": "b"}}, "numbered from 0"),
        (
            {
                "modality": {"0": "CT"},
                "labels": {"0": "b"},
                "training": [{"image": "../../etc/x.nii", "label": "y.nii"}],
            },
            "outside the folder",
        ),
        ({"modality": {"0": "CT"}, "labels": {"0": "b"}, "training": []}, "has no cases"),
        ({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": [1, 2]}}, "class_order"),
        (
            {"channel_names": {"0": "CT"}, "labels": {"background": 0}, "file_ending": ".png"},
            "convert them to NIfTI",
        ),
    ],
)
def test_a_list_that_does_not_say_what_it_must_is_an_error(tmp_path, listed, said):
    (tmp_path / "imagesTr").mkdir()
    write_json(tmp_path, **listed)
    with pytest.raises(UnreadableError, match=said):
        open_folder(tmp_path)


def test_a_folder_without_list_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no dataset\.json in it"):
        open_folder(tmp_path / "nowhere")


def spoil(path, change):
    """Write a file of the data set anew, changed."""
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.load(path)
    array, affine = change(np.asarray(image.dataobj).copy(), image.affine.copy())
    save(path, array, affine)


def put(value):
    def change(array, affine):
        array = array.astype(np.float32)
        array[1, 2, 3] = value
        return array, affine

    return change


def moved(array, affine):
    affine[0, 3] += 0.5
    return array, affine


BAD = {
    "an image with NaN": ("imagesTr", put(np.nan), r"not finite \(1, the first at \(3, 2, 1\)\)"),
    "an image with inf": ("imagesTr", put(-np.inf), "not finite"),
    "an image of zeros": ("imagesTr", lambda a, m: (0 * a, m), "has only zero voxels"),
    "an image of other shape": ("imagesTr", lambda a, m: (a[1:], m), "is of shape .* but"),
    "an image elsewhere": ("imagesTr", moved, "lies up to 0.5 mm beside"),
    "an image of two channels": (
        "imagesTr",
        lambda a, m: (np.stack([a, a], -1), m),
        "has 2 channels, not 1",
    ),
    "labels of other shape": ("labelsTr", lambda a, m: (a[:, :, 1:], m), "is of shape"),
    "labels elsewhere": ("labelsTr", moved, "affines differ"),
    "labels unknown": ("labelsTr", put(7), r"labelled 7, which are none of \[0, 1, 2\]"),
    "labels with NaN": ("labelsTr", put(np.nan), "labelled nan"),
    "labels in between": ("labelsTr", put(1.5), "labelled 1.5"),
    "negative labels": ("labelsTr", put(-1), "labelled -1"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_case_is_left_out_by_name_and_the_others_are_used(decathlon, bad):
    where, change, said = BAD[bad]
    spoil(decathlon / where / "organ_002.nii.gz", change)
    known = survey(open_folder(decathlon))
    assert sorted(known.facts) == [f"organ_{i:03}" for i in (0, 1, 3, 4, 5)]
    (out,) = known.left_out
    assert out.name == "organ_002"
    with pytest.raises(UnreadableError, match=said):
        raise UnreadableError(out.why)


def test_damaged_and_missing_files_are_left_out_too(decathlon):
    cut = decathlon / "imagesTr" / "organ_001.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-30])
    (decathlon / "labelsTr" / "organ_004.nii.gz").unlink()
    # A name that no file can have ended the run.
    facts = json.loads((decathlon / "dataset.json").read_text())
    facts["training"][5]["image"] = f"imagesTr/{'x' * 300}.nii.gz"
    (decathlon / "dataset.json").write_text(json.dumps(facts))
    folder = open_folder(decathlon)
    assert len(fingerprint(folder)) == 16
    known = survey(folder)
    *others, long = known.left_out
    assert long.name == "x" * 300
    assert [(out.name, "is damaged" in out.why, "no such" in out.why) for out in others] == [
        ("organ_001", True, False),
        ("organ_004", False, True),
    ]


def test_if_no_case_is_left_the_reasons_are_told(decathlon):
    for path in (decathlon / "labelsTr").iterdir():
        spoil(path, put(9))
    with pytest.raises(ValueError, match=r"none of 6 cases can be used: organ_000: .*labelled 9"):
        survey(open_folder(decathlon))


def test_files_turned_differently_still_belong_together(tmp_path, decathlon):
    _, labels = phantom(0)
    nibabel = pytest.importorskip("nibabel")
    turned = nibabel.Nifti1Image(labels, affine_of()).as_reoriented(
        nibabel.orientations.axcodes2ornt("PSL")
    )
    nibabel.save(turned, decathlon / "labelsTr" / "organ_000.nii.gz")
    folder = open_folder(decathlon)
    np.testing.assert_array_equal(read(folder.cases[0], folder).labels, labels.T)
