"""The registry: one route to built-ins, plugins and what a notebook adds; nothing shadowed, nothing imported early."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from iqa_robust import attacks, datasets, defenses, models
from iqa_robust.defenses.base import Defense, DifferentiablePurifier
from iqa_robust.errors import ContractError, DuplicateNameError, PluginError, RequestError, UnknownNameError
from iqa_robust.registry import Registry

SOUND = """
from iqa_robust.defenses.base import DifferentiablePurifier

class {name}(DifferentiablePurifier):
    def __init__(self, *, strength: float = 1.0) -> None:
        self.strength = strength

    def purify(self, x):
        return self.strength * x
"""


def registry(**builtins: str) -> Registry[Defense]:
    """A registry of defenses as after a start: what plugins are installed is looked up at first use."""
    own = {
        "gaussian": "iqa_robust.defenses.filtering.gaussian:Gaussian",
        "jpeg": "iqa_robust.defenses.codec.jpeg:JPEG",
        **builtins,
    }
    return Registry("defense", base="iqa_robust.defenses.base:Defense", builtins=own)


class Site:
    """A folder on `sys.path` into which distributions are installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, release: str, entry_points: dict[str, str], **modules: str) -> None:
        """Metadata as `pip` leaves it, with entry points for defenses, and top-level modules."""
        info = self.folder / f"{distribution.replace('-', '_')}-{release}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {release}\n")
        lines = [f"{name} = {target}" for name, target in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[iqa_robust.defenses]", *lines, ""]))
        for name, source in modules.items():
            (self.folder / f"{name}.py").write_text(source)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_plugin_is_found_under_the_name_of_its_distribution(site: Site) -> None:
    site.install("Good_Lab.Tools", "2.0.1", {"dim": "good_lab:Dim"}, good_lab=SOUND.format(name="Dim"))
    found = registry()
    assert "good-lab-tools/dim" in found.names()
    entry = found.entry("good-lab-tools/dim")
    assert (entry.target, entry.distribution, entry.version) == ("good_lab:Dim", "good-lab-tools", "2.0.1")
    assert "good_lab" not in sys.modules  # listing imports nothing
    assert found.status("good-lab-tools/dim") == ("ok", "")
    assert found.create("good-lab-tools/dim", strength=0.5).strength == 0.5  # type: ignore[attr-defined]


def test_two_distributions_may_use_the_same_name(site: Site) -> None:
    for lab in ("first", "second"):
        source = SOUND.format(name="Dim")
        site.install(f"{lab}-lab", "1.0", {"dim": f"{lab}_module:Dim"}, **{f"{lab}_module": source})
    found = registry()
    assert found.get("first-lab/dim").__module__ == "first_module"
    assert found.get("second-lab/dim").__module__ == "second_module"


def test_a_plugin_cannot_shadow_a_name(site: Site) -> None:
    site.install("evil", "1.0", {"gaussian": "evil_module:Dim"}, evil_module=SOUND.format(name="Dim"))
    found = registry()
    assert found.get("gaussian").__module__ == "iqa_robust.defenses.filtering.gaussian"
    assert found.get("evil/gaussian").__module__ == "evil_module"


@pytest.mark.parametrize(
    ("source", "target", "cause"),
    [
        (None, "gone:Dim", "ModuleNotFoundError: No module named 'gone'."),
        ("x = 1", "broken_module:Dim", "AttributeError: module 'broken_module' has no attribute 'Dim'."),
        ("raise OSError('no license')", "broken_module:Dim", "OSError: no license."),
        ("import not_here_at_all", "broken_module:Dim", "ModuleNotFoundError: No module named 'not_here_at_all'."),
        ("def Dim(", "broken_module:Dim", "SyntaxError: "),
        ("class Dim: pass", "broken_module:Dim", "it is not a subclass of Defense."),
        ("Dim = 3", "broken_module:Dim", "it is not a subclass of Defense."),
    ],
)
def test_a_broken_plugin_stays_listed_and_names_package_version_and_cause(
    site: Site, source: str | None, target: str, cause: str
) -> None:
    modules = {} if source is None else {"broken_module": source}
    site.install("broken-lab", "0.3", {"dim": target}, **modules)
    found = registry()
    assert "broken-lab/dim" in found.names()
    head = f"defense 'broken-lab/dim' from broken-lab 0.3 could not be loaded ({target}): "
    with pytest.raises(PluginError) as raised:
        found.create("broken-lab/dim")
    assert str(raised.value).startswith(head + cause)
    assert found.status("broken-lab/dim") == ("broken", str(raised.value))
    assert found.get("gaussian")  # the others go on working


def test_a_typo_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError) as raised:
        registry().get("gausian")
    assert str(raised.value) == "no defense named 'gausian'. Did you mean 'gaussian'? See `iqa-robust list defenses`."
    with pytest.raises(UnknownNameError) as raised:
        registry().get("qqqq")
    assert str(raised.value) == "no defense named 'qqqq'. See `iqa-robust list defenses`."


def test_a_typo_in_a_plugins_name_too(site: Site) -> None:
    site.install("good-lab", "1.0", {"dim": "good_lab:Dim"}, good_lab=SOUND.format(name="Dim"))
    with pytest.raises(UnknownNameError, match=r"Did you mean 'good-lab/dim'\?"):
        registry().get("goodlab/dim")


class Mine(DifferentiablePurifier):
    """What a notebook would add."""

    def __init__(self, *, strength: float = 1.0) -> None:
        self.strength = strength

    def purify(self, x: object) -> object:  # type: ignore[override]
        return x


def test_a_session_can_add_a_name() -> None:
    found = registry()
    found.add("mine", Mine)
    assert [name for name in found.names() if "/" not in name] == ["gaussian", "jpeg", "mine"]
    assert found.get("mine") is Mine
    assert found.status("mine") == ("ok", "")
    assert found.entry("mine").distribution == "(this session)"
    assert isinstance(found.create("mine", strength=0.1), Mine)
    assert "mine" not in registry().names()


def test_adding_shadows_nothing() -> None:
    found = registry()
    found.add("mine", Mine)
    for name in ("gaussian", "mine"):
        with pytest.raises(DuplicateNameError) as raised:
            found.add(name, Mine)
        assert str(raised.value) == f"the defense name {name!r} is taken; choose another one."


@pytest.mark.parametrize("name", ["", "Mine", "my_thing", "lab/mine", "-mine", "mine-", "a b", "mine\n"])
def test_an_added_name_is_lower_case_words(name: str) -> None:
    with pytest.raises(ContractError, match="expected lower-case words joined by hyphens"):
        registry().add(name, Mine)


def test_parameters_that_are_not_taken_are_a_wrong_request() -> None:
    with pytest.raises(RequestError) as raised:
        registry().create("gaussian", sgima=1.0)
    assert str(raised.value).startswith("defense 'gaussian': got an unexpected keyword argument 'sgima'")
    with pytest.raises(RequestError, match=r"dataset 'csv': missing a required( keyword-only)? argument: 'table'"):
        datasets.create("csv")


def test_an_error_inside_a_constructor_is_not_hidden() -> None:
    class Failing(Mine):
        def __init__(self) -> None:
            raise TypeError("can only concatenate str")

    found = registry()
    found.add("failing", Failing)
    with pytest.raises(RequestError) as raised:
        found.create("failing")
    assert str(raised.value) == "defense 'failing' does not accept {}: can only concatenate str."
    assert isinstance(raised.value.__cause__, TypeError)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"table": 3}, "dataset 'csv': expected table to be text, got 3."),
        ({"table": None}, "dataset 'csv': expected table to be text, got None."),
        ({"table": "table.csv", "root": 3}, "dataset 'csv': expected root to be text, got 3."),
    ],
)
def test_text_is_checked_before_it_is_used(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(RequestError) as raised:
        datasets.create("csv", **params)
    assert str(raised.value) == sentence


def test_a_path_is_text_and_none_is_no_table() -> None:
    assert datasets.create("csv", table=Path("table.csv"), root=None).root is None
    assert defenses.create("trained", model="compact", params=None).params is None  # type: ignore[attr-defined]


def test_a_constructor_that_fails_names_package_version_and_cause(site: Site) -> None:
    source = SOUND.format(name="Dim").replace("self.strength = strength", "raise RuntimeError('init boom')")
    site.install("acme-lab", "1.0", {"dim": "acme_module:Dim"}, acme_module=source)
    with pytest.raises(PluginError) as raised:
        registry().create("acme-lab/dim")
    assert str(raised.value) == "defense 'acme-lab/dim' from acme-lab 1.0 could not be made: RuntimeError: init boom."


def test_a_missing_extra_is_not_installed_rather_than_broken() -> None:
    found: Registry[Defense] = Registry(
        "defense",
        base="iqa_robust.defenses.base:Defense",
        builtins={"extra": "not_here_at_all.module:Extra"},
        requires={"extra": "not_here_at_all"},
    )
    assert found.status("extra") == ("not-installed", "not_here_at_all")
    with pytest.raises(PluginError, match=r"ModuleNotFoundError: .* Install it with `pip install not_here_at_all`\."):
        found.get("extra")


@pytest.mark.parametrize("room", [models, defenses, attacks, datasets], ids=lambda room: room.__name__)
def test_built_ins_come_from_this_distribution_and_load(room: object) -> None:
    found: Registry[object] = room.registry  # type: ignore[attr-defined]
    own = [name for name in found.names() if found.entry(name).distribution == "iqa-robust"]
    assert own
    for name in own:
        assert found.entry(name).version == version("iqa-robust")
        if found.status(name)[0] == "ok":
            assert isinstance(found.get(name), type)


def test_listing_imports_no_torch_even_with_a_plugin_installed(site: Site) -> None:
    site.install("good-lab", "1.0", {"dim": "good_lab:Dim"}, good_lab="import torch")
    program = (
        f"import sys; sys.path.insert(0, {str(site.folder)!r})\n"
        "from iqa_robust import defenses\n"
        "assert 'good-lab/dim' in defenses.names(), defenses.names()\n"
        "defenses.registry.entry('good-lab/dim')\n"
        "assert 'torch' not in sys.modules and 'good_lab' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
