"""The use-cases of registries: logging in and out, what they hold, taking things away there."""

from __future__ import annotations

from cloison.errors import CloisonError, Denied, InvalidArgument, NotFound, Unsupported
from cloison.images.reach import Reach
from cloison.model.reference import is_short, parse_reference
from cloison.registry.auth import Credentials
from cloison.registry.listing import Hit, list_repositories, list_tags, search_index
from cloison.registry.referrers import list_referrers
from cloison.registry.upload import Uploader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloison.images.progress import Progress
    from cloison.model.reference import Reference
    from cloison.model.settings import Access, Settings
    from cloison.oci.image import Descriptor

DEFAULT_REGISTRY = "docker.io"
_HUB_INDEX = "index.docker.io"  # answers searches, and has no catalog


class Registries:
    """Registries as this user reaches them. ``access`` holds for one call; ``warn`` hears of what cannot be used."""

    def __init__(self, settings: Settings, *, warn: Callable[[str], None] | None = None) -> None:
        self._settings = settings
        self._warn = warn

    def _reach(self, access: Access | None) -> Reach:
        return Reach(self._settings, access=access, warn=self._warn)

    def login(self, server: str, username: str, *, password: str, access: Access | None = None) -> str:
        """Check a user's password at a registry and keep it; where it is kept.

        Raises: Denied when the registry refuses it, Unavailable; nothing is kept then.
        """
        domain = _domain(server)
        reach = self._reach(access)
        credentials = Credentials(username=username, password=password)
        session = reach.session(domain, credentials=credentials)
        try:
            with session.get("", {}, body_bytes=64 << 10) as answer:
                session.check(answer, 200, missing=f"{domain} is no registry")
            if session.identity_token:
                credentials = credentials.replace(identity_token=session.identity_token)
        finally:
            session.close()
        return reach.keychain.store(domain, credentials)

    def logout(self, server: str, *, access: Access | None = None) -> bool:
        """Forget the credentials for a registry; whether there were any. Raises: Denied, Unavailable."""
        return self._reach(access).keychain.erase(_domain(server))

    def logged_in(self, *, access: Access | None = None) -> Sequence[str]:
        """The registries that have an entry in a file of credentials."""
        return self._reach(access).keychain.servers()

    def username(self, server: str, *, access: Access | None = None) -> str:
        """Whom we are to a registry; "" is nobody known."""
        known = self._reach(access).credentials(_domain(server))
        return known.username or ("<token>" if known.identity_token else "") if known else ""

    def tags(self, repository: str, *, access: Access | None = None) -> Sequence[str]:
        """All tags of a repository, as its registry orders them. Raises: NotFound, Denied, Unavailable."""
        reference = _repository(repository)
        with self._reach(access).writer(reference, actions="pull") as client:
            return list(list_tags(client))

    def catalog(self, server: str, *, access: Access | None = None) -> Iterator[str]:
        """The repositories of a registry, page by page. Raises: Denied, NotFound (no catalog), Unavailable."""
        session = self._reach(access).session(_domain(server), scope="registry:catalog:*")
        try:
            yield from list_repositories(session)
        finally:
            session.close()

    def search(self, text: str, *, limit: int = 25, access: Access | None = None) -> Sequence[Hit]:
        """Images by a word: at the registry that ``REGISTRY/WORD`` names, else at Docker Hub or where short names are
        looked for, at most ``limit`` of each. A registry without an index is searched through its catalog.

        Where several are asked, one that does not answer is told to ``warn``. Raises: Denied, NotFound, Unavailable.
        """
        reach = self._reach(access)
        places = reach.search_places(text)
        found: list[Hit] = []
        failures: list[CloisonError] = []
        for domain, term in places:
            try:
                found += self._search_one(reach, domain, term, limit=limit)
            except CloisonError as err:
                failures.append(err)
                if len(places) > 1 and self._warn is not None:
                    self._warn(str(err))
        if len(failures) == len(places):
            raise failures[-1]
        return found

    def _search_one(self, reach: Reach, domain: str, term: str, *, limit: int) -> Sequence[Hit]:
        is_hub = _domain(domain) == DEFAULT_REGISTRY
        term = term.removeprefix("library/") if is_hub else term
        prefix = "" if is_hub else f"{domain}/"
        if is_hub or term:
            session = reach.session(_HUB_INDEX if is_hub else domain, root="/v1")
            try:
                hits = search_index(session, term, limit=limit)
                return [hit.replace(name=prefix + hit.name) for hit in hits]
            except (NotFound, Denied, InvalidArgument, Unsupported):
                if is_hub:
                    raise
            finally:
                session.close()
        hits = []
        session = reach.session(domain, scope="registry:catalog:*")
        try:
            for name in list_repositories(session):
                if term in name:
                    hits.append(Hit(name=prefix + name))
                if len(hits) == limit:
                    break
        finally:
            session.close()
        return hits

    def delete(self, text: str, *, access: Access | None = None) -> str:
        """Delete what a reference names: a tag's manifest, with all of its tags, or the manifest of a digest.

        The digest. Raises: NotFound, Unsupported where the registry does not delete, Denied, Unavailable.
        """
        reference = parse_reference(text)
        with self._reach(access).writer(reference, actions="pull,push,delete") as client:
            digest = reference.digest or client.digest(reference) or client.manifest(reference).digest
            Uploader(client).delete_manifest(digest)
        return digest

    def referrers(
        self, text: str, *, artifact_type: str = "", access: Access | None = None
    ) -> tuple[str, Sequence[Descriptor]]:
        """The digest that a reference names, and what refers to it. Raises: NotFound, Denied, Unavailable."""
        reference = parse_reference(text)
        with self._reach(access).writer(reference, actions="pull") as client:
            digest = reference.digest or client.digest(reference) or client.manifest(reference).digest
            return digest, list_referrers(client, digest, artifact_type=artifact_type)

    # -- images there

    def copy(
        self, source: str, target: str, *, platform: str = "", every_platform: bool = False, form: str = "",
        source_access: Access | None = None, target_access: Access | None = None, progress: Progress | None = None,
    ) -> str:  # fmt: skip
        """Copy an image between places (``docker://…``, ``oci:…``, `cloison.engine.transports`); its digest there.

        ``form`` makes its manifests ``oci`` or ``v2s2`` (Docker's schema 2); "" leaves them and the digest as they are.
        Raises: NotFound, Denied, Unavailable, InvalidArgument; nothing is left then.
        """
        from cloison.engine.transports import open_source, open_target, parse_place
        from cloison.images.conversion import check_form
        from cloison.images.copying import copy

        check_form(form)
        origin, goal = parse_place(source), parse_place(target)
        with (
            open_source(origin, settings=self._settings, reach=self._reach(source_access), progress=progress) as here,
            open_target(goal, reach=self._reach(target_access)) as there,
        ):
            done = copy(
                here, there, name=source, platform=platform, every_platform=every_platform, form=form, progress=progress
            )  # fmt: skip
        return done.digest

    def inspect(
        self, text: str, *, platform: str = "", with_tags: bool = True, access: Access | None = None
    ) -> dict[str, object]:
        """An image in a place, in skopeo's words, without pulling it. Raises: NotFound, Denied, Unavailable."""
        from cloison.engine.remote import summary
        from cloison.engine.transports import open_source, parse_place

        place = parse_place(text)
        name, tags = "", []
        if place.transport == "docker":
            reference = self._reach(access).candidates(place.name)[0]
            name = reference.canonical_name
            tags = list(self.tags(name, access=access)) if with_tags else []
        with open_source(place, settings=self._settings, reach=self._reach(access)) as source:
            return summary(source, platform=platform, name=name, tags=tags)

    def document(self, text: str, *, config: bool = False, access: Access | None = None) -> bytes:
        """The manifest or index of an image in a place, byte for byte, or its configuration."""
        from cloison.engine.remote import one_image, small_blob
        from cloison.engine.transports import open_source, parse_place

        with open_source(parse_place(text), settings=self._settings, reach=self._reach(access)) as source:
            if not config:
                return source.manifest().body
            return small_blob(source, one_image(source, platform="", name=text)[1].config)

    def describe(self, text: str, *, access: Access | None = None) -> Sequence[dict[str, object]]:
        """What docker's ``manifest inspect -v`` shows of an image on a registry: every member and its manifest."""
        from cloison.engine.remote import verbose
        from cloison.engine.transports import open_source, parse_place

        name = text.removeprefix("docker://")
        place = parse_place(f"docker://{name}")
        with open_source(place, settings=self._settings, reach=self._reach(access)) as source:
            return verbose(source, name=parse_reference(name).canonical)


def _domain(server: str) -> str:
    """``host[:port]`` of what users type for a registry: also with a scheme or a path. Raises: InvalidArgument."""
    text = server.partition("://")[2] if "://" in server else server
    host = text.partition("/")[0]
    if host in ("", "index.docker.io", "registry-1.docker.io"):
        return DEFAULT_REGISTRY
    if is_short(f"{host}/x"):
        raise InvalidArgument(f"{server} is no registry", why="a host has a dot or a port, or is localhost")
    return parse_reference(f"{host}/x").domain


def _repository(text: str) -> Reference:
    reference = parse_reference(text)
    if reference.digest or text.rpartition("/")[2].partition(":")[1]:
        raise InvalidArgument(f"cannot list the tags of {text}", why="name the repository without tag and digest")
    return reference
