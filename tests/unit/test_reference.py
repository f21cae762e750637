"""The grammar of references is docker's, to the letter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloison.errors import InvalidArgument
from cloison.model.digest import is_digest
from cloison.model.reference import parse_reference

SHA = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:bookworm", "docker.io/library/debian:bookworm", "debian:bookworm"),
        ("host/base", "docker.io/host/base:latest", "host/base:latest"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("index.docker.io/library/debian:1", "docker.io/library/debian:1", "debian:1"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
        ("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x"),
        ("127.0.0.1:5000/debian:bookworm", "127.0.0.1:5000/debian:bookworm", "127.0.0.1:5000/debian:bookworm"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("Example.org/a", "Example.org/a:latest", "Example.org/a:latest"),
        (f"debian@{SHA}", f"docker.io/library/debian@{SHA}", f"debian@{SHA}"),
        (f"debian:1@{SHA}", f"docker.io/library/debian:1@{SHA}", f"debian:1@{SHA}"),
        ("a/b__c.d-e--f", "docker.io/a/b__c.d-e--f:latest", "a/b__c.d-e--f:latest"),
        ("x:T_a-g.1", "docker.io/library/x:T_a-g.1", "x:T_a-g.1"),
    ],
)
def test_a_reference_has_a_canonical_and_a_familiar_form(text: str, canonical: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (reference.canonical, reference.familiar) == (canonical, familiar)
    assert parse_reference(reference.familiar) == reference
    assert parse_reference(reference.canonical) == reference


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "@", "/", "a//b", "a/", "/a", "a:", "a:-x", "a:.x", "a:" + "t" * 129, "-a", "a-", "a..b", "a___b",
        "a/_b", "a b", "a\n", "a:x\n", "a:x y", "a@b", "a@sha256:", f"a@{SHA}0", f"a@{SHA.upper()}", f"a@{SHA}\n",
        f"a@@{SHA}", "a@md5:" + "0" * 32, "a@sha256:../../../x", "é", "a:é", "٣", "a/b:٣", "under_score.org/a",
        "-x.org/a", "x.org:a/b", "x.org:/b", "[::1/a", "[x]/a", "a:b:c", "a" * 256, "ab" * 32, "a/../b", "./a",
        "../a", "a\0b", "a%2fb",
    ],
)  # fmt: skip
def test_what_docker_refuses_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_reference(text)


def test_upper_case_is_refused_with_dockers_words() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_reference("Debian")
    assert str(caught.value) == "invalid reference format: repository name (library/Debian) must be lowercase"


@given(st.text(alphabet="ab0.-_/:@A[]\n ", max_size=24))
def test_every_text_parses_to_itself_or_is_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidArgument:
        return
    assert parse_reference(reference.canonical) == reference
    assert "\n" not in reference.canonical and ".." not in reference.canonical.split("/")
    assert len(reference.path) <= 255 and (reference.tag or reference.digest)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (SHA, True), ("sha512:" + "0" * 128, True), ("sha256:" + "AB" * 32, False), ("SHA256:" + "ab" * 32, False),
        ("sha256:" + "ab" * 31, False), ("sha256:" + "ab" * 32 + "\n", False), ("md5:" + "0" * 32, False), ("", False),
        ("sha256", False), ("sha256:../x", False), ("sha256:" + "ag" * 32, False), ("sha256:" + "٣" * 64, False),
    ],
)  # fmt: skip
def test_a_digest_is_an_algorithm_and_exactly_its_lower_case_hex(text: str, good: bool) -> None:
    assert is_digest(text) is good
