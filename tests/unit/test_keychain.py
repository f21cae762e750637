"""Credentials from config.json, auth.json and helpers: which one wins, what is broken, what a change leaves alone."""

from __future__ import annotations

import json
import os
import stat
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from cloison.errors import CloisonError, InvalidArgument, Unavailable
from cloison.images.keychain import HUB_KEY, Keychain
from cloison.model.settings import Settings
from cloison.registry.auth import Credentials

HOST = "registry.example:5000"


def auth(text: str) -> dict[str, str]:
    return {"auth": b64encode(text.encode()).decode()}


class Home:
    """A home directory, and what a keychain there says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environ = {"HOME": str(path), "XDG_RUNTIME_DIR": f"{path}/run", "PATH": f"{path}/bin:/usr/bin:/bin"}
        self.warnings: list[str] = []

    @property
    def keychain(self) -> Keychain:
        return Keychain(Settings(environ=self.environ), warn=self.warnings.append)

    def write(self, name: str, content: object) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    def helper(self, name: str, script: str) -> None:
        self.write(f"bin/docker-credential-{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)

    def user(self, domain: str = HOST, path: str = "") -> str:
        found = self.keychain.find(domain, path)
        return found.username if found else ""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_the_first_place_that_has_it_wins(home: Home) -> None:
    assert home.user() == ""
    for number, place in enumerate((".config/containers/auth.json", "run/containers/auth.json", ".docker/config.json")):
        home.write(place, {"auths": {HOST: auth(f"user{number}:x")}})
        assert home.user() == f"user{number}"
    home.environ["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {HOST: auth("variable:x")}})
    assert home.user() == "variable"
    del home.environ["DOCKER_AUTH_CONFIG"]
    home.environ["REGISTRY_AUTH_FILE"] = str(home.write("only.json", {"auths": {"other": auth("o:x")}}))
    assert home.user() == ""
    assert home.user("other") == "o"


def test_the_most_specific_entry_wins_and_old_forms_are_known(home: Home) -> None:
    home.write(
        ".docker/config.json",
        {"auths": {
            "h.example": auth("host:x"), "h.example/a": auth("a:x"), "h.example/a/b": auth("ab:p:q"),
            "https://old.example/v1/": auth("old:x"), HUB_KEY: auth("hub:x"), "empty.example": {},
            "plain.example": {"username": "u", "password": "p"}, "token.example": {"identitytoken": "t"},
        }},
    )  # fmt: skip
    assert [home.user("h.example", path) for path in ("", "c", "a/c", "a/b", "a/b/c", "ab")] == [
        "host", "host", "a", "ab", "ab", "host",
    ]  # fmt: skip
    assert home.keychain.find("h.example", "a/b") == Credentials(username="ab", password="p:q")
    assert [home.user(name) for name in ("old.example", "docker.io", "empty.example", "plain.example")] == [
        "old", "hub", "", "u",
    ]  # fmt: skip
    assert home.keychain.find("token.example") == Credentials(identity_token="t")
    assert home.warnings == []


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"auths": []}', '{"auths": {"registry.example:5000": 1}}',
     '{"auths": {"registry.example:5000": {"auth": "%%%"}}}', '{"auths": {"registry.example:5000": {"auth": "eA=="}}}'],
)  # fmt: skip
def test_what_cannot_be_read_is_warned_of_once_and_never_overwritten(home: Home, content: str) -> None:
    file = home.write(".docker/config.json", content)
    home.write("run/containers/auth.json", {"auths": {HOST: auth("next:x")}})
    keychain = home.keychain
    found = [keychain.find(HOST) for _ in range(3)]
    assert [item.username for item in found if item] == ["next"] * 3
    assert len(home.warnings) == 1
    assert "going on without credentials" in home.warnings[0]
    if content[1:2] != '"' or 'auth":' not in content:
        with pytest.raises(InvalidArgument, match="malformed"):
            keychain.store(HOST, Credentials(username="u", password="p"))
        assert file.read_text() == content


def test_a_change_keeps_what_it_does_not_know_mode_and_link(home: Home) -> None:
    real = home.write("elsewhere/config.json", {"psFormat": "x", "auths": {"other": auth("o:x")}, "new": {"a": [1]}})
    real.chmod(0o640)
    link = home.path / ".docker/config.json"
    link.parent.mkdir()
    link.symlink_to(real)
    assert home.keychain.store(HOST, Credentials(username="u", password="p")) == str(link)
    content = json.loads(real.read_text())
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert (content["psFormat"], content["new"]) == ("x", {"a": [1]})
    assert content["auths"] == {"other": auth("o:x"), HOST: auth("u:p")}
    assert home.keychain.erase(HOST)
    assert not home.keychain.erase(HOST)
    assert json.loads(real.read_text())["auths"] == {"other": auth("o:x")}


def test_a_new_file_is_for_its_user_alone(home: Home) -> None:
    home.keychain.store("docker.io", Credentials(username="u", password="p", identity_token="t"))
    file = home.path / ".docker/config.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(json.loads(file.read_text())["auths"]) == [HUB_KEY]
    assert home.keychain.find("docker.io") == Credentials(username="u", identity_token="t")
    assert os.listdir(file.parent) == ["config.json"]


HELPER = """
import json, os, sys
kept = os.environ["HOME"] + "/kept"
said = sys.stdin.read()
if sys.argv[1] == "store":
    open(kept, "w").write(said)
elif not os.path.exists(kept) or sys.argv[1] == "get" and json.load(open(kept))["ServerURL"] != said:
    print("credentials not found in native keychain")
    sys.exit(1)
elif sys.argv[1] == "get":
    print(open(kept).read())
else:
    os.unlink(kept)
"""


def test_a_helper_is_asked_told_and_made_to_forget(home: Home) -> None:
    home.helper("box", f'exec {sys.executable} {home.write("helper.py", HELPER)} "$1"')
    file = home.write(".docker/config.json", {"credHelpers": {HOST: "box"}, "auths": {"a.example": auth("file:x")}})
    before = file.read_text()
    assert home.user() == ""
    assert home.keychain.store(HOST, Credentials(username="u", password="p")) == "docker-credential-box"
    stored = json.loads((home.path / "kept").read_text())
    assert stored == {"ServerURL": HOST, "Username": "u", "Secret": "p"}
    assert home.keychain.find(HOST) == Credentials(username="u", password="p")
    assert home.user("a.example") == "file"
    assert home.keychain.erase(HOST)
    assert home.user() == ""
    assert file.read_text() == before
    assert home.warnings == []


def test_an_identity_token_comes_from_a_helper_under_its_own_name(home: Home) -> None:
    home.helper("all", """printf '{"Username":"<token>","Secret":"t"}'""")
    home.write(".docker/config.json", {"credsStore": "all"})
    assert home.keychain.find(HOST) == Credentials(identity_token="t")


@pytest.mark.parametrize(
    "script",
    ["exit 3", "echo no; exit 1", "echo '{'", "echo '{}'", "echo '[1]'", "kill -9 $$", None],
    ids=["status", "words", "half", "empty", "list", "killed", "missing"],
)  # fmt: skip
def test_a_broken_helper_is_warned_of_and_the_rest_still_counts(home: Home, script: str | None) -> None:
    if script:
        home.helper("bad", script)
    home.write(".docker/config.json", {"credsStore": "bad", "auths": {"a.example": auth("file:x")}})
    keychain = home.keychain
    assert keychain.find(HOST) is None
    found = keychain.find("a.example")
    assert found is not None and found.username == "file"
    assert len(home.warnings) == 1
    assert home.warnings[0].startswith("WARNING: credential helper docker-credential-bad failed: ")
    if script is None or not script.startswith("echo '"):
        with pytest.raises(Unavailable):
            keychain.store(HOST, Credentials(username="u", password="p"))


def test_a_helpers_name_is_no_path(home: Home) -> None:
    home.write(".docker/config.json", {"credsStore": "../../bin/sh"})
    assert home.user() == ""
    assert "not installed" in home.warnings[0]


def test_without_a_home_there_is_nowhere_to_keep_credentials() -> None:
    keychain = Keychain(Settings())
    assert keychain.find(HOST) is None
    with pytest.raises(CloisonError, match="neither HOME nor DOCKER_CONFIG"):
        keychain.store(HOST, Credentials(username="u", password="p"))


def test_secrets_are_in_no_repr(home: Home) -> None:
    settings = Settings(environ={"DOCKER_AUTH_CONFIG": "s3cret"})
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in repr(Credentials(username="u", password="s3cret", identity_token="s3cret"))
