"""``login`` and ``logout``."""

from __future__ import annotations

from cloison.cli import output
from cloison.cli.access import access_flags, access_of
from cloison.cli.asking import ask
from cloison.cli.parser import Flag, Verb
from cloison.cli.terminal import is_terminal
from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call

_DEFAULT = "docker.io"
_MAX_PASSWORD = 64 << 10


def login(call: Call) -> int:
    """Ask for what was not given, if there is a terminal to ask at."""
    server = call.words[0] if call.words else _DEFAULT
    registries, access = call.engine.registries, access_of(call)
    if call.switch("get-login"):
        name = registries.username(server, access=access)
        output.say(name) if name else output.complain(f"not logged into {server}")
        return 0 if name else 1
    user, password = call.text("username"), call.text("password")
    if call.given("password"):
        if call.switch("password-stdin"):
            raise InvalidArgument("--password and --password-stdin are mutually exclusive")
        output.complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    elif call.switch("password-stdin"):
        if not user:
            raise InvalidArgument("Must provide --username with --password-stdin")
        password = _read_password()
    user = user or _ask(f"Username for {server}: ", call)
    password = password or _ask("Password: ", call, hidden=True)
    where = registries.login(server, user, password=password, access=access)
    if call.switch("verbose"):
        output.say(f"Used: {where}")
    output.say("Login Succeeded")
    return 0


def logout(call: Call) -> int:
    registries, access = call.engine.registries, access_of(call)
    if call.switch("all"):
        for server in registries.logged_in(access=access):
            registries.logout(server, access=access)
        output.say("Removed login credentials for all registries")
        return 0
    server = call.words[0] if call.words else _DEFAULT
    if registries.logout(server, access=access):
        output.say(f"Removing login credentials for {server}")
    else:
        output.say(f"Not logged in to {server}")
    return 0


def _read_password() -> str:
    """All of standard input without its last line end."""
    with open(output.STDIN, "rb", closefd=False) as stream:
        data = stream.read(_MAX_PASSWORD)
    text = data.decode(errors="surrogateescape").removesuffix("\n").removesuffix("\r")
    if not text:
        raise InvalidArgument("cannot log in", why="the password on standard input is empty")
    return text


def _ask(prompt: str, call: Call, *, hidden: bool = False) -> str:
    """One line from the terminal. Raises: InvalidArgument without one."""
    if not is_terminal(output.STDIN):
        raise InvalidArgument(
            "Cannot perform an interactive login from a non TTY device",
            hint="cloison login --username USER --password-stdin",
        )
    if hidden:
        import getpass

        answer = getpass.getpass(prompt)
    else:
        answer = ask(prompt)
    if not answer:
        raise InvalidArgument("username is empty" if not hidden else "password is empty")
    return answer


LOGIN = Verb(
    "login", login, summary="Authenticate to a registry", usage="[OPTIONS] [SERVER]", most=1,
    details="The credentials go into $DOCKER_CONFIG/config.json, ~/.docker by default, or to the helper that it names. "
    "Those that podman and skopeo keep in auth.json are found, too.",
    flags=(
        *access_flags(creds=False),
        Flag("--get-login", help="Print the user who is logged in"),
        Flag("-p, --password", "string", help="Password"),
        Flag("--password-stdin", help="Take the password from stdin"),
        Flag("-u, --username", "string", help="Username"),
        Flag("-v, --verbose", help="Print where the credentials were put"),
    ),
)  # fmt: skip
LOGOUT = Verb(
    "logout", logout, summary="Log out from a registry", usage="[OPTIONS] [SERVER]", most=1,
    flags=(
        Flag("-a, --all", help="Forget the credentials for all registries"),
        Flag("--authfile", "string", help="File of credentials, and no other"),
    ),
)  # fmt: skip
