"""Short names on a terminal and without one: asked about once, never guessed where registries.conf forbids it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Cloison, Roots
from registry_fixture import Layout, Registry, is_available, running_registry, tar_of
from screen import Screen

pytestmark = pytest.mark.skipif(not is_available(), reason="needs Debian's docker-registry and skopeo")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    root = tmp_path_factory.mktemp("registry")
    layout = Layout(root / "oci")
    layout.add_image([(tar_of({"etc/file": b"x"}), "gzip")], tag="app")
    with running_registry(root / "registry") as running:
        running.push(layout.path, "one/app:1", tag="app")
        running.push(layout.path, "two/app:1", tag="app")
        yield running


@pytest.fixture
def command(registry: Registry) -> Iterator[Callable[[str], Cloison]]:
    """A command whose short names are looked for in two places, in a mode."""
    roots = Roots()

    def configure(mode: str) -> Cloison:
        directory = Path(roots.data_root, "config/containers")
        directory.mkdir(parents=True)
        places = ", ".join(f'"{registry.address}/{path}"' for path in ("one", "two"))
        (directory / "registries.conf").write_text(
            f'unqualified-search-registries = [{places}]\nshort-name-mode = "{mode}"\n'
        )
        return Cloison(roots)

    yield configure
    roots.remove()


@pytest.mark.parametrize("mode", ["enforcing", "permissive"])
def test_on_a_terminal_it_is_asked_once(command: Callable[[str], Cloison], registry: Registry, mode: str) -> None:
    cloison = command(mode)
    screen = Screen(cloison, "pull", "app:1")
    try:
        screen.see("Which image is meant by app:1?")
        screen.see(f"  2) {registry.address}/two/app:1")
        screen.see("Number [1]: ")
        screen.type("2\n")
        assert screen.end() == 0
    finally:
        screen.close()
    assert cloison.ok("images", "--format", "{{.Repository}}:{{.Tag}}") == f"{registry.address}/two/app:1"
    aliases = Path(cloison.roots.data_root, "caches/containers/short-name-aliases.conf")
    assert aliases.read_text() == f'[aliases]\n  "app" = "{registry.address}/two/app"\n'
    assert cloison.ok("pull", "-q", "app:1") == f"{registry.address}/two/app:1"
    assert cloison.inspect("app:1")["RepoTags"] == [f"{registry.address}/two/app:1"]


@pytest.mark.parametrize("answer", ["3\n", "app\n", "\4"])
def test_an_answer_that_is_none_ends_it(command: Callable[[str], Cloison], answer: str) -> None:
    cloison = command("enforcing")
    screen = Screen(cloison, "run", "--rm", "app:1", "true")
    try:
        screen.see("Number [1]: ")
        screen.type(answer)
        assert screen.end() == 125
        assert screen.is_cooked()
    finally:
        screen.close()
    assert cloison.ok("images", "-q") == ""


def test_without_a_terminal_an_enforced_name_is_an_error(command: Callable[[str], Cloison], registry: Registry) -> None:
    cloison = command("enforcing")
    refused = cloison("pull", "app:1")
    assert refused.returncode == 1
    assert "cannot tell which registry the short name app:1 means" in refused.stderr
    assert f"{registry.address}/one/app:1" in refused.stderr
    # what is here already needs no answer
    cloison.ok("pull", "-q", f"{registry.address}/two/app:1")
    assert cloison.inspect("app:1")["RepoTags"] == [f"{registry.address}/two/app:1"]


@pytest.mark.parametrize("mode", ["permissive", "disabled"])
def test_without_a_terminal_the_first_place_that_has_it_will_do(
    command: Callable[[str], Cloison], registry: Registry, mode: str
) -> None:
    cloison = command(mode)
    assert cloison.ok("pull", "-q", "app:1") == f"{registry.address}/one/app:1"
    assert not Path(cloison.roots.data_root, "caches").exists()
