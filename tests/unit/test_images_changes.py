"""`import --change`: each instruction does what the Dockerfile reference says of it."""

from __future__ import annotations

import pytest

from cloison.errors import InvalidArgument
from cloison.images.changes import apply_changes
from cloison.model.image import ImageConfig


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ('CMD ["sh", "-c", "x y"]', "cmd", ("sh", "-c", "x y")),
        ("CMD echo hello", "cmd", ("/bin/sh", "-c", "echo hello")),
        ("CMD [not json", "cmd", ("/bin/sh", "-c", "[not json")),
        ('entrypoint ["/init"]', "entrypoint", ("/init",)),
        ('ENV A=1 B="two words"', "env", ("A=1", "B=two words")),
        ("ENV A one  two", "env", ("A=one  two",)),
        ("EXPOSE 80 53/udp 8000-8002", "exposed_ports", ("80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp")),
        ("LABEL a=b c='d e'", "labels", {"a": "b", "c": "d e"}),
        ("USER 1000:1000", "user", "1000:1000"),
        ("WORKDIR /srv/../app", "workdir", "/app"),
        ("WORKDIR app", "workdir", "/app"),
        ("STOPSIGNAL SIGINT", "stop_signal", "SIGINT"),
        ('VOLUME ["/data", "/x y"]', "volumes", ("/data", "/x y")),
        ("VOLUME /data /logs", "volumes", ("/data", "/logs")),
    ],
)
def test_an_instruction_sets_its_field(change: str, field: str, value: object) -> None:
    assert getattr(apply_changes(ImageConfig(), [change]), field) == value


def test_later_instructions_build_on_earlier_ones() -> None:
    changes = [
        "ENV A=1 B=2",
        "ENV A=3",
        "CMD x",
        'ENTRYPOINT ["e"]',
        "WORKDIR /a",
        "WORKDIR b",
        "LABEL x=1",
        "LABEL y=2",
    ]
    config = apply_changes(ImageConfig(), changes)
    assert config.env == ("A=3", "B=2")
    assert (config.entrypoint, config.cmd) == (("e",), ())
    assert (config.workdir, config.labels) == ("/a/b", {"x": "1", "y": "2"})


@pytest.mark.parametrize(
    "change", ["RUN x", "", "CMD", "EXPOSE x", "EXPOSE 0", "EXPOSE 70000", "EXPOSE 1/x", "LABEL =x", 'ENV "', "FROM y"]
)
def test_what_is_no_change_is_refused(change: str) -> None:
    with pytest.raises(InvalidArgument):
        apply_changes(ImageConfig(), [change])
