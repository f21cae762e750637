"""References, records and their files: what is found by which words, and what goes when a name goes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cloison.errors import Conflict, InvalidArgument, NoSpace, NotFound, Unavailable
from cloison.images.records import ImageStore
from cloison.images.removal import ImageUse
from cloison.model.image import Image, ImageConfig
from cloison.model.reference import parse_reference


def image(number: int, **fields: object) -> Image:
    identity = f"{number:x}".ljust(64, "0")
    values = {"id": f"sha256:{identity}", "digest": "sha256:" + "d" * 64, "config": ImageConfig(), "layers": ()}
    return Image(**{**values, **fields})


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path))


def put(store: ImageStore, number: int, *names: str, **fields: object) -> Image:
    made = image(number, **fields)
    for name in names or (None,):
        store.put(made, parse_reference(name) if name else None)
    return made


def names(store: ImageStore) -> list[str]:
    return [listing.reference for listing in store.list()]


def test_an_image_is_found_by_name_by_id_and_by_the_beginning_of_its_id(store: ImageStore) -> None:
    debian = put(store, 0xAB12, "debian:bookworm", config=ImageConfig(env=("A=1",), labels={"k": "v"}))
    for text in (
        "debian:bookworm",
        "docker.io/library/debian:bookworm",
        debian.id,
        debian.id[7:],
        "ab12",
        "sha256:ab1",
    ):
        assert store.find(text) == debian


@pytest.mark.parametrize("text", ["debian", "debian:sid", "ab13", "f" * 64, "sha256:" + "f" * 64, "x/ab12"])
def test_what_is_not_there_is_not_found(store: ImageStore, text: str) -> None:
    put(store, 0xAB12, "debian:bookworm")
    with pytest.raises(NotFound, match="No such image: "):
        store.find(text)


def test_a_sweep_takes_what_a_crash_left_and_spares_a_tag_that_looks_like_it(store: ImageStore, tmp_path: Path) -> None:
    put(store, 1, "tool:v1.tmp")
    directory = tmp_path / "images" / "names"
    (directory / "docker.io%library%tool:v2.77.0badcafe.tmp").write_text('{"version": 1')
    whole = (directory / "docker.io%library%tool:v1.tmp").read_text()
    (directory / "docker.io%library%tool:v3.77.0badcafe.tmp").write_text(whole)
    assert names(store) == ["tool:v1.tmp"]
    store.sweep()
    assert names(store) == ["tool:v1.tmp"]
    assert [file.name for file in directory.iterdir()] == ["docker.io%library%tool:v1.tmp"]


def test_the_message_for_a_missing_name_says_the_tag(store: ImageStore) -> None:
    with pytest.raises(NotFound) as caught:
        store.find("debian")
    assert str(caught.value) == "No such image: debian:latest"


def test_an_ambiguous_id_is_a_conflict_and_a_name_comes_before_an_id(store: ImageStore) -> None:
    first, second = put(store, 0xAB1), put(store, 0xAB2)
    with pytest.raises(Conflict, match="ambiguous"):
        store.find("ab")
    assert (store.find("ab1"), store.find("ab2")) == (first, second)
    named = put(store, 0xC, "ab")
    assert store.find("ab") == named


def test_a_digest_finds_the_image_that_was_pulled_by_tag(store: ImageStore) -> None:
    digest = "sha256:" + "e" * 64
    pulled = put(store, 1, "debian:12", repo_digests=(f"docker.io/library/debian@{digest}",))
    assert store.find(f"debian@{digest}") == pulled
    assert store.find(f"debian:whatever@{digest}") == pulled
    with pytest.raises(NotFound):
        store.find(f"ubuntu@{digest}")


def test_the_digest_of_the_manifest_finds_what_was_pulled_through_an_index(store: ImageStore) -> None:
    pulled = put(store, 1, "debian:12", repo_digests=("docker.io/library/debian@sha256:" + "e" * 64,))
    assert store.find(f"debian@{pulled.digest}") == pulled
    with pytest.raises(NotFound):
        store.find(f"ubuntu@{pulled.digest}")


def test_a_registrys_digest_goes_with_the_last_name_in_its_repository(store: ImageStore) -> None:
    digest = "debian@sha256:" + "e" * 64
    pulled = put(store, 1, "debian:12", repo_digests=(f"docker.io/library/{digest}",))
    for name in ("debian:13", "mine:1"):
        store.tag("debian:12", name)
    assert store.remove("debian:12").untagged == ("debian:12",)
    assert store.find(digest) == pulled
    assert store.remove("debian:13").untagged == ("debian:13", digest)
    assert store.find("mine:1").repo_digests == ()
    removal = store.remove("mine:1")
    assert (removal.untagged, removal.deleted and removal.deleted.id) == (("mine:1",), pulled.id)


def test_images_of_one_moment_are_listed_by_name_and_those_without_last(store: ImageStore) -> None:
    moment = "2026-01-01T00:00:00Z"
    put(store, 1, "b", created=moment)
    put(store, 2, created=moment)
    put(store, 3, "a", created=moment)
    assert names(store) == ["a:latest", "b:latest", ""]


def test_a_record_without_its_name_is_taken_back(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise NoSpace("cannot write the name")

    kept = put(store, 1, "kept")
    monkeypatch.setattr(store, "_write_name", full)
    with pytest.raises(NoSpace):
        put(store, 2, "new")
    with pytest.raises(NoSpace):
        put(store, 1, "other")
    assert names(store) == ["kept:latest"]
    assert store.find("kept") == kept


def test_a_digest_that_is_a_name_too_is_untagged_once(store: ImageStore) -> None:
    name = "debian@sha256:" + "e" * 64
    put(store, 1, name, repo_digests=(f"docker.io/library/{name}",))
    assert store.remove(name).untagged == (name,)


def test_a_name_that_is_given_to_another_image_leaves_the_first_dangling(store: ImageStore) -> None:
    put(store, 1, "a", created="2026-01-01T00:00:00Z")
    put(store, 2, "a", created="2026-01-02T00:00:00Z")
    assert names(store) == ["a:latest", ""]
    assert store.find("a").id == image(2).id


def test_a_tag_is_one_more_name(store: ImageStore) -> None:
    made = put(store, 1, "a")
    store.tag("a", "localhost:5000/b:x")
    assert store.find("localhost:5000/b:x") == made
    assert [name.familiar for name in store.references_of(made.id)] == ["a:latest", "localhost:5000/b:x"]
    with pytest.raises(InvalidArgument, match="digest"):
        store.tag("a", "b@sha256:" + "e" * 64)
    with pytest.raises(NotFound):
        store.tag("missing", "c")


def test_the_last_name_takes_the_image_with_it(store: ImageStore) -> None:
    made = put(store, 1, "a", "b")
    first = store.remove("a")
    assert (first.untagged, first.deleted) == (("a:latest",), None)
    last = store.remove("b")
    assert (last.untagged, last.deleted) == (("b:latest",), made)
    with pytest.raises(NotFound):
        store.find(made.id)


def test_an_id_stands_for_all_names_of_one_repository(store: ImageStore) -> None:
    made = put(store, 0xAB, "a:1", "a:2")
    removal = store.remove("ab")
    assert (removal.untagged, removal.deleted) == (("a:1", "a:2"), made)


def test_an_id_with_names_of_several_repositories_must_be_forced(store: ImageStore) -> None:
    made = put(store, 0xAB, "a", "b")
    with pytest.raises(Conflict, match="referenced in multiple repositories"):
        store.remove("ab")
    assert store.remove("ab", force=True).deleted == made


def test_a_name_that_is_also_the_beginning_of_an_id_is_a_name(store: ImageStore) -> None:
    named = put(store, 0xAB, "ab", "other")
    assert store.remove("ab").deleted is None
    assert store.find("other") == named


def test_an_image_in_use_stays(store: ImageStore) -> None:
    made = put(store, 1, "a")
    stopped = ImageUse(container_id="c" * 64, image_id=made.id)
    running = ImageUse(container_id="d" * 64, image_id=made.id, running=True)
    other = ImageUse(container_id="e" * 64, image_id=image(2).id, running=True)
    with pytest.raises(Conflict, match=r"must force.*container cccccccccccc is using its referenced image"):
        store.remove("a", uses=[stopped])
    for force in (False, True):
        with pytest.raises(Conflict, match=r"cannot be forced.*running container dddddddddddd"):
            store.remove("a", force=force, uses=[stopped, running])
    assert store.find("a") == made
    assert store.remove("a", force=True, uses=[stopped, other]).deleted == made


def test_a_second_name_may_go_while_the_image_is_in_use(store: ImageStore) -> None:
    made = put(store, 1, "a", "b")
    assert store.remove("a", uses=[ImageUse(container_id="c", image_id=made.id, running=True)]).deleted is None


def test_a_very_long_name_has_a_file_name_of_its_own(store: ImageStore) -> None:
    long = "/".join(["part" * 10] * 6)
    made, other = put(store, 1, long + "a"), put(store, 2, long + "b")
    assert (store.find(long + "a"), store.find(long + "b")) == (made, other)


def test_a_damaged_record_is_an_error_for_people(store: ImageStore, tmp_path: Path) -> None:
    put(store, 1, "a")
    for path in (tmp_path / "images/names").iterdir():
        path.write_text("{")
    with pytest.raises(Unavailable, match="damaged"):
        store.find("a")


def test_threads_may_name_and_remove_at_the_same_time(store: ImageStore) -> None:
    put(store, 1, "keep")
    failures: list[BaseException] = []

    def churn(number: int) -> None:
        try:
            for _ in range(10):
                store.tag("keep", f"t{number}")
                with store.lock():
                    store.remove(f"t{number}")
        except BaseException as err:
            failures.append(err)

    threads = [threading.Thread(target=churn, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert names(store) == ["keep:latest"]


def test_nothing_is_collected_while_something_comes_in(store: ImageStore) -> None:
    with store.incoming(), store.incoming():
        assert store.no_incoming() is None
    alone = store.no_incoming()
    assert alone is not None
    alone.release()


def test_finding_in_an_empty_store_makes_no_directory(store: ImageStore, tmp_path: Path) -> None:
    assert store.list() == []
    with pytest.raises(NotFound):
        store.find("a")
    assert os.listdir(tmp_path) == []
