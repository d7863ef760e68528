"""Names of targets, spaces and configurations: the user's file first, then the one that ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.formats.named_files import NamedFiles
from deploy.run.config import Overrides, load_experiment
from deploy.run.shipped import CONFIGURATIONS, SPACES, load_space
from deploy.targets.placement import TARGETS, load_target
from hil.errors import UsageError
from tests.conftest import REPOSITORY


@pytest.fixture
def things(tmp_path, monkeypatch) -> NamedFiles:
    """One, `shipped`, in the package; the working directory and the user's folder are empty."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return NamedFiles("thing", "things", written(tmp_path / "package" / "shipped.toml").parent)


def written(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


def test_the_nearest_file_of_a_name_is_taken(things, tmp_path):
    """Each one that is added lies before all that were there."""
    assert things.find("shipped") == tmp_path / "package" / "shipped.toml"
    users = written(tmp_path / "home" / "hilnas" / "things" / "shipped.toml")
    assert things.find("shipped") == users
    written(tmp_path / "work" / "things" / "shipped.toml")
    assert things.find("shipped") == Path("things/shipped.toml")
    project = written(tmp_path / "project" / "things" / "shipped.toml")
    assert things.find("shipped", tmp_path / "project") == project
    first = written(tmp_path / "first" / "shipped.toml")
    assert things.find("shipped", tmp_path / "project", first.parent) == first


def test_a_path_is_a_path(things, tmp_path):
    written(tmp_path / "work" / "own.toml")
    written(tmp_path / "work" / "things" / "shipped.toml")
    assert things.find("own.toml") == things.find(Path("own.toml")) == Path("own.toml")
    assert things.find("things/shipped.toml", tmp_path / "work") == tmp_path / "work" / "things" / "shipped.toml"
    assert things.find(tmp_path / "work" / "own.toml", Path("elsewhere")) == tmp_path / "work" / "own.toml"


@pytest.mark.parametrize("wanted", ["own.toml", "./shipped", "things/shipped.toml", "/none/shipped.toml"])
def test_a_path_without_a_file(things, wanted):
    with pytest.raises(UsageError, match=r"no such file; give another thing: a file or shipped$"):
        things.find(wanted)


def test_an_unknown_name(things):
    with pytest.raises(
        UsageError, match=r"thing 'shiped': not in things, .*home/hilnas/things or the package; did you"
    ):
        things.find("shiped")
    with pytest.raises(UsageError, match=r"there are shipped$"):
        things.find("xyz")


def test_from_anywhere_the_shipped_ones_load(things):
    assert load_target(None, "imx8mp-vx").name == "imx8mp-vx"
    assert load_space("table1").count() == 3246
    experiment, space = load_experiment("demo-scenes", Overrides())
    assert (experiment.name, space.name) == ("demo", "demo")


def test_a_configurations_space_may_lie_beside_it(things, tmp_path):
    config = REPOSITORY / "deploy/configs/demo-scenes.toml"
    space = (REPOSITORY / "nas/spaces/demo.toml").read_text().replace('name = "demo"', 'name = "mine"')
    project = tmp_path / "project"
    written(project / "spaces" / "mine.toml").write_text(space)
    for wanted in ("spaces/mine.toml", "mine"):
        (project / "mine.toml").write_text(config.read_text().replace('space = "demo"', f'space = "{wanted}"'))
        assert load_experiment(project / "mine.toml", Overrides())[1].name == "mine"


def test_everything_that_ships_is_well_formed():
    for path in CONFIGURATIONS.package.glob("*.toml"):
        assert load_experiment(path.stem, Overrides())[0].budgets
    for path in SPACES.package.glob("*.toml"):
        assert load_space(path.stem).blocks
    for path in TARGETS.package.glob("*.toml"):
        assert load_target(None, path.stem).rules
