"""``search``: an index where a registry has one, its catalog where it has none; nothing of it steers a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from cloison.cli.dispatch import run_command_line
from cloison.engine.registries import Registries
from cloison.errors import Denied
from cloison.images.reach import Reach
from cloison.model.settings import Settings
from scripted_registry import Exchange, ScriptedRegistry

RESULTS = [
    {
        "name": "web",
        "description": "Serves\n\x1b[31mfiles",
        "star_count": 12,
        "is_official": True,
        "is_automated": False,
    },
    {"name": "ali/web", "description": "x" * 60, "star_count": 3, "is_official": False, "is_automated": True},
]
Search = Callable[..., str]


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        yield running


@pytest.fixture
def indexed(server: ScriptedRegistry) -> ScriptedRegistry:
    def answer(exchange: Exchange) -> None:
        count = int(parse_qs(exchange.query)["n"][0])
        exchange.answer(200, json.dumps({"results": RESULTS[:count]}).encode())

    server.on("/v1/search", answer)
    return server


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Search:
    """What the command prints on standard output, or on standard error where it fails."""
    for name in ("HOME", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "CLOISON_DATA_ROOT", "CLOISON_RUN_ROOT"):
        monkeypatch.setenv(name, str(tmp_path))

    def run(*words: str, status: int = 0) -> str:
        assert run_command_line(["search", *words]) == status
        out, err = capfd.readouterr()
        return err if status else out

    return run


def test_an_index_is_asked_and_shown_as_docker_shows_it(indexed: ScriptedRegistry, search: Search) -> None:
    lines = search(f"{indexed.address}/a b&c").splitlines()
    assert parse_qs(indexed.requests[-1].query) == {"q": ["a b&c"], "n": ["25"]}
    name = f"{indexed.address}/ali/web"
    assert lines[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert lines[1].split() == [f"{indexed.address}/web", "Serves", "\\x1b[31mfiles", "12", "[OK]"]
    assert lines[2].split() == [name, "x" * 44 + "…", "3"]
    assert "x" * 60 in search("--no-trunc", "--limit", "2", f"{indexed.address}/web")
    assert len(search("--limit", "1", f"{indexed.address}/web").splitlines()) == 2


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["is-official=true"], ["web"]),
        (["is-official=false"], ["ali/web"]),
        (["is-automated=1"], ["ali/web"]),
        (["stars=3"], ["web", "ali/web"]),
        (["stars=4"], ["web"]),
        (["stars=4", "is-official=false"], []),
    ],
)
def test_filters_choose(indexed: ScriptedRegistry, search: Search, filters: list[str], names: list[str]) -> None:
    flags = [word for text in filters for word in ("--filter", text)]
    found = search(*flags, "--format", "{{.Name}}", f"{indexed.address}/web").split()
    assert found == [f"{indexed.address}/{name}" for name in names]


def test_json_has_dockers_words(indexed: ScriptedRegistry, search: Search) -> None:
    first = json.loads(search("--format", "json", f"{indexed.address}/web").splitlines()[0])
    assert first == {
        "Name": f"{indexed.address}/web", "Description": "Serves \x1b[31mfiles", "StarCount": "12",
        "IsOfficial": "true", "IsAutomated": "false",
    }  # fmt: skip


@pytest.mark.parametrize("index", ["missing", "page", "other"])
def test_a_registry_without_an_index_is_searched_through_its_catalog(
    server: ScriptedRegistry, search: Search, index: str
) -> None:
    if index != "missing":
        server.on("/v1/search", lambda e: e.answer(200, b"<html>" if index == "page" else b'{"hello":1}'))
    names = [f"team/web{number}" for number in range(30)]
    server.on("/v2/_catalog", lambda e: e.answer(200, json.dumps({"repositories": ["other", *names]}).encode()))
    assert search("--format", "{{.Name}}", f"{server.address}/web").split() == [
        f"{server.address}/{name}" for name in names[:25]
    ]
    assert search("--format", "{{.Name}}", "--limit", "1", f"{server.address}/").split() == [f"{server.address}/other"]


def test_the_tags_of_a_repository(server: ScriptedRegistry, search: Search) -> None:
    server.on("/v2/app/tags/list", lambda e: e.answer(200, b'{"name":"app","tags":["1","2","3"]}'))
    lines = [line.split() for line in search("--list-tags", "--limit", "2", f"{server.address}/app").splitlines()]
    assert lines == [["NAME", "TAG"], [f"{server.address}/app", "1"], [f"{server.address}/app", "2"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", "0"], "invalid limit 0"),
        (["--limit", "101"], "invalid limit 101: outside the range of [1, 100]"),
        (["--filter", "stars=many"], "invalid filter 'stars=many'"),
        (["--filter", "is-official=perhaps"], "invalid filter 'is-official=perhaps'"),
        (["--filter", "colour=red"], "invalid filter 'colour'"),
        (["--list-tags", "--filter", "stars=1"], "filters are not applicable"),
    ],
)
def test_words_that_make_no_sense_are_refused(
    indexed: ScriptedRegistry, search: Search, words: list[str], message: str
) -> None:
    assert message in search(*words, f"{indexed.address}/web", status=1)


def conf(tmp_path: Path, text: str) -> Settings:
    directory = tmp_path / "containers"
    directory.mkdir(parents=True)
    (directory / "registries.conf").write_text(text)
    return Settings(etc=str(tmp_path))


def test_a_term_alone_goes_to_docker_hub_or_where_short_names_are_looked_for(
    server: ScriptedRegistry, tmp_path: Path
) -> None:
    assert Reach(Settings()).search_places("web") == [("docker.io", "web")]
    assert Reach(Settings()).search_places("library/web") == [("docker.io", "library/web")]
    assert Reach(Settings()).search_places("docker.io/web") == [("docker.io", "web")]
    server.on("/v2/_catalog", lambda e: e.answer(200, b'{"repositories":["web"]}'))
    with ScriptedRegistry() as silent:
        silent.on("/v2/_catalog", lambda e: e.answer(403))
        settings = conf(tmp_path, f'unqualified-search-registries = ["{silent.address}", "{server.address}"]\n')
        said: list[str] = []
        found = Registries(settings, warn=said.append).search("web")
    assert [hit.name for hit in found] == [f"{server.address}/web"]
    assert len(said) == 1 and silent.address in said[0]


def test_a_blocked_registry_is_not_searched(server: ScriptedRegistry, tmp_path: Path) -> None:
    settings = conf(tmp_path, f'[[registry]]\nlocation = "{server.address}"\nblocked = true\n')
    with pytest.raises(Denied, match="blocked"):
        Registries(settings).search(f"{server.address}/web")
    assert not server.requests
