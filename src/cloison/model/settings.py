"""Where this engine keeps its things and what it calls them on the host; read once by a door, passed down frozen."""

from __future__ import annotations

from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_DATA_ROOT = "/var/lib/cloison"
DEFAULT_RUN_ROOT = "/run/cloison"


class Settings(Record):
    """Two engines with different run roots share nothing: links, nft tables and cgroups carry ``instance``."""

    data_root: str = DEFAULT_DATA_ROOT
    run_root: str = DEFAULT_RUN_ROOT
    instance: str = "cloison"  # "cloison", or "cloison-" + 6 hex digits of the run root's name
    subnet: str = ""  # "" picks one that collides with no route; "10.210.0.0/16" fixes it
    insecure_registries: tuple[str, ...] = ()  # host[:port] where plain HTTP is allowed besides loopback
    http_proxy: str = ""  # http://[user:password@]host:port, for registries over plain HTTP
    https_proxy: str = ""  # the same, for all other registries
    no_proxy: str = ""  # hosts and domain suffixes, comma-separated, or "*"
    storage_driver: str = ""  # overlay, btrfs, fuse-overlayfs, native; "" is the first that works
    drop_layer_blobs: bool = False  # compressed layers go once they are unpacked, where a registry has them
    keep_storage_bytes: int = 0  # images that nobody uses go, the longest unused first, above this; 0 is no budget
    debug: bool = False
    # Where registries' credentials, certificates and mirrors are looked for; as they stand, nowhere
    environ: Mapping[str, str] = {}  # of the caller: HOME, XDG_…, DOCKER_CONFIG, and what credential helpers get
    etc: str = ""  # "/etc"

    def __repr__(self) -> str:
        return f"Settings({self.data_root!r}, {self.run_root!r})"  # the environment holds secrets

    @property
    def bridge(self) -> str:
        """Name of the default bridge: at most 15 bytes (IFNAMSIZ)."""
        return self.instance + ("0" if self.instance == "cloison" else "")

    @property
    def nft_table(self) -> str:
        return self.instance.replace("-", "_")

    @property
    def cgroup_parent(self) -> str:
        """Directory below each hierarchy's root."""
        return self.instance


def settings_for(environ: dict[str, str], *, data_root: str = "", run_root: str = "") -> Settings:
    """Settings from flags, then ``CLOISON_DATA_ROOT`` and its sisters; proxies from where every program finds them."""
    data = data_root or environ.get("CLOISON_DATA_ROOT", "") or DEFAULT_DATA_ROOT
    run = run_root or environ.get("CLOISON_RUN_ROOT", "") or DEFAULT_RUN_ROOT
    insecure = tuple(filter(None, environ.get("CLOISON_INSECURE_REGISTRIES", "").split(",")))
    return Settings(
        data_root=data, run_root=run, instance=_instance(run), subnet=environ.get("CLOISON_SUBNET", ""),
        insecure_registries=insecure,
        drop_layer_blobs=_choice(environ, "CLOISON_LAYER_BLOBS", ("keep", "drop")) == "drop",
        storage_driver=environ.get("CLOISON_STORAGE_DRIVER", ""),
        keep_storage_bytes=_size(environ, "CLOISON_KEEP_STORAGE"), debug=bool(environ.get("CLOISON_DEBUG")),
        http_proxy=environ.get("http_proxy") or environ.get("HTTP_PROXY", ""),
        https_proxy=environ.get("https_proxy") or environ.get("HTTPS_PROXY", ""),
        no_proxy=environ.get("no_proxy") or environ.get("NO_PROXY", ""), environ=environ, etc="/etc",
    )  # fmt: skip


def _choice(environ: dict[str, str], name: str, words: tuple[str, ...]) -> str:
    """One of these words, the first when the variable is not set. Raises: InvalidArgument."""
    word = environ.get(name) or words[0]
    if word not in words:
        from cloison.errors import InvalidArgument

        raise InvalidArgument(f"invalid {name}: {word!r}", hint=f"there are {' and '.join(words)}")
    return word


def _size(environ: dict[str, str], name: str) -> int:
    """Bytes; 0 when the variable is not set. Raises: InvalidArgument."""
    text = environ.get(name, "")
    if not text:
        return 0
    from cloison.errors import InvalidArgument
    from cloison.model.units import parse_size

    try:
        return parse_size(text)
    except ValueError as err:
        raise InvalidArgument(f"invalid {name}", why=str(err)) from None


def _instance(run_root: str) -> str:
    if run_root == DEFAULT_RUN_ROOT:
        return "cloison"
    # FNV-1a: a name, not a secret, and hashlib costs 2 ms at import
    digest = 0xCBF29CE484222325
    for byte in run_root.encode():
        digest = ((digest ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"cloison-{digest & 0xFFFFFF:06x}"


class Access(Record):
    """How one call reaches a registry, where it differs from what the environment and the files of tools say."""

    username: str = ""
    password: str = ""
    auth_file: str = ""  # this file of credentials and no other
    cert_dir: str = ""  # *.crt, *.cert and *.key, in place of certs.d
    tls_verify: bool | None = (
        None  # False: no certificate is checked, and plain HTTP will do; True: TLS on loopback, too
    )

    def __repr__(self) -> str:
        return "Access(…)"
