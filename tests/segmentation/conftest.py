"""A small data set of volumes, written as real ones are published."""

import json

import pytest

from tests.segmentation.phantoms import phantom, save


@pytest.fixture
def decathlon(tmp_path):
    """A folder of six cases in the Decathlon's layout."""
    names = [f"organ_{i:03}" for i in range(6)]
    for i, name in enumerate(names):
        image, labels = phantom(i)
        save(tmp_path / "imagesTr" / f"{name}.nii.gz", image)
        save(tmp_path / "labelsTr" / f"{name}.nii.gz", labels)
    listed = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "front", "2": "back"},
        "training": [
            {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names
        ],
        "test": [],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    return tmp_path


@pytest.fixture(scope="session", autouse=True)
def _a_cache_of_their_own(tmp_path_factory):
    """What tests prepare and keep is not left to the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
