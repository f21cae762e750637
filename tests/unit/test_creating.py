"""What an image says and what was asked, brought together."""

from __future__ import annotations

import pytest

from cloison.engine.creating import merge_env, resolve
from cloison.engine.names import check_name, random_name
from cloison.errors import InvalidArgument
from cloison.model.container import ContainerSpec
from cloison.model.image import Image, ImageConfig

IMAGE = Image(
    id="sha256:1",
    digest="sha256:2",
    layers=("sha256:3",),
    config=ImageConfig(
        entrypoint=("/entry",),
        cmd=("default",),
        env=("PATH=/bin", "A=image"),
        workdir="/srv",
        user="web",
        volumes=("/data",),
    ),
)


def argv(**words: object) -> tuple[str, ...]:
    return resolve(ContainerSpec(image="x", **words), IMAGE, container_id="0" * 64).argv


def test_a_command_replaces_the_images_cmd_and_keeps_its_entrypoint() -> None:
    assert argv() == ("/entry", "default")
    assert argv(command=("ls",)) == ("/entry", "ls")


def test_an_entrypoint_takes_the_images_cmd_away() -> None:
    assert argv(entrypoint=("sh",)) == ("sh",)
    assert argv(entrypoint=(), command=("ls", "-l")) == ("ls", "-l")


def test_no_command_at_all_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(InvalidArgument, match="no command specified"):
        argv(entrypoint=())


def test_the_image_fills_what_was_not_asked() -> None:
    record = resolve(ContainerSpec(image="x"), IMAGE, container_id="0" * 64)
    assert (record.workdir, record.user, record.stop_signal, record.volumes) == ("/srv", "web", "SIGTERM", ("/data",))


def test_env_later_wins_in_place_and_a_bare_name_removes() -> None:
    assert merge_env(("A=1", "B=2", "C=3"), ("B=x", "D=4", "A")) == ("B=x", "C=3", "D=4")
    with pytest.raises(InvalidArgument):
        merge_env((), ("=x",))


@pytest.mark.parametrize("name", ["", "a", "-a", ".a", "a b", "a/b", "ä" * 3, "a\n", "x" * 201])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_name(name)


def test_random_names_pass_their_own_check() -> None:
    for _ in range(200):
        check_name(random_name())
