"""Where files are looked for: the first folder that has one, and an error that names them all."""

import pytest

from regrow.data.download import Remote
from regrow.data.places import Places
from regrow.machine import cache_folder


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """The places in order, each with a file that says which it is."""
    monkeypatch.setenv("REGROW_DATA", str(tmp_path / "variable"))
    monkeypatch.setattr("regrow.data.places._SYSTEM", (str(tmp_path / "system"),))
    found = [tmp_path / "argument", tmp_path / "variable", cache_folder(), tmp_path / "system"]
    for i, root in enumerate(found):
        (root / "tea").mkdir(parents=True)
        (root / "tea" / "leaves.csv").write_text(str(i))
    return found


def test_each_place_comes_before_the_next(roots):
    places = Places("tea", roots[0])
    for i, root in enumerate(roots):
        assert places.file(("leaves.csv",), "").read_text() == str(i)
        (root / "tea" / "leaves.csv").unlink()
    with pytest.raises(FileNotFoundError) as error:
        places.file(("leaves.csv",), "ask a grocer")
    for part in ("tea: leaves.csv not found", "ask a grocer", *(str(r / "tea") for r in roots)):
        assert part in str(error.value)


def test_an_earlier_folder_wins_over_a_likelier_name(roots):
    (roots[0] / "tea" / "leaves.csv").rename(roots[0] / "tea" / "old.csv")
    assert Places("tea", roots[0]).file(("leaves.csv", "old.csv"), "").name == "old.csv"


def test_a_folder_that_is_not_there_is_not_passed_over(roots, tmp_path):
    """Data of another place would be taken for what was asked for."""
    with pytest.raises(FileNotFoundError, match=r"nowhere'.*no such folder.*'tea'"):
        Places("tea", tmp_path / "nowhere").file(("leaves.csv",), "")


def test_without_an_argument_the_variable_comes_first(roots, monkeypatch):
    assert Places("tea").folders[0] == roots[1] / "tea"
    monkeypatch.delenv("REGROW_DATA")
    assert Places("tea").folders[0] == cache_folder() / "tea"


def test_a_folder_of_the_files_name_is_no_file(roots):
    (roots[0] / "tea" / "leaves.csv").unlink()
    (roots[0] / "tea" / "leaves.csv").mkdir()
    assert Places("tea", str(roots[0])).file(("leaves.csv",), "").read_text() == "1"


def test_without_a_home_folder_the_data_is_still_found(roots, monkeypatch):
    """Containers run as users that are in no list: the cache alone is done without."""

    def homeless(path):
        return str(path)

    monkeypatch.setattr("os.path.expanduser", homeless)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    places = Places("tea", roots[0])
    assert places.file(("leaves.csv",), "").read_text() == "0"
    with pytest.raises(OSError):
        cache_folder().mkdir(parents=True)
    assert str(Places("tea", "~x").folders[0]) == "~x/tea"
    remote = Remote("https://nowhere.invalid/tea.csv", "0", "sha256")
    with pytest.raises(OSError, match=r"no home folder to download leaves to.*XDG_CACHE_HOME"):
        Places("coffee", download=True).fetch(remote, "leaves", "ask a grocer")
