"""From argv to one verb: global flags, the verb's module, its flags, its action, and every error's last stop."""

from __future__ import annotations

import os

from cloison.cli import output
from cloison.cli.parser import Flag, HelpWanted, UsageError, Verb, parse
from cloison.cli.verbs import GROUP_VERBS, GROUPS, LATER, VERBS
from cloison.errors import CloisonError, InvalidArgument
from cloison.model.settings import settings_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

GLOBAL_FLAGS = (
    Flag("--data-root", "string", help="Directory of images, containers and volumes"),
    Flag("-D, --debug", help="Show where an error comes from"),
    Flag("--run-root", "string", help="Directory of what a reboot forgets"),
    Flag("-v, --version", help="Print version information and quit"),
)
SIGINT, SIGPIPE = 2, 13


def _nothing(_call: object) -> int:
    return 0


TOP = Verb(
    "cloison", _nothing, summary="", flags=GLOBAL_FLAGS, interspersed=False,
    later="H c l host context config log-level tls tlscacert tlscert tlskey tlsverify",
)  # fmt: skip


def run_command_line(argv: Sequence[str]) -> int:
    """Carry out one command line and give its exit status; whatever went wrong has been said on standard error."""
    environ = dict(os.environ)
    debug = bool(environ.get("CLOISON_DEBUG")) or bool({"-D", "--debug"}.intersection(argv[:6]))
    failure = 1
    try:
        flags, words = _parse_global(argv)
        debug = debug or bool(flags.get("debug"))
        if flags.get("version"):
            from cloison.cli.system import print_version

            return print_version()
        if not words:
            return _help([])
        verb, rest = find_verb(words)
        if verb is None:
            return _help(words)
        failure = verb.failure
        return _act(verb, rest, flags=flags, environ=environ)
    except HelpWanted:
        return _help([])
    except CloisonError as error:
        if debug:
            _traceback()
        output.report(error)
        return output.exit_status(error, failure)
    except BrokenPipeError:
        return 128 + SIGPIPE  # the reader has gone, as `ps | head -1` does: nothing to say
    except KeyboardInterrupt:
        return 128 + SIGINT
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else failure
    except Exception as error:
        if debug:
            _traceback()
        output.complain(f"cloison: internal error: {type(error).__name__}: {output.visible(str(error))}")
        if not debug:
            output.complain("hint: 'cloison --debug …' shows where it comes from; please report it")
        return failure


def _parse_global(argv: Sequence[str]) -> tuple[dict[str, object], list[str]]:
    try:
        return parse(TOP, argv)
    except UsageError as error:
        raise UsageError(error.what.replace("cloison cloison", "cloison")) from None


def _act(verb: Verb, rest: list[str], *, flags: dict[str, object], environ: dict[str, str]) -> int:
    from cloison.cli.call import Call

    try:
        values, words = parse(verb, rest)
    except HelpWanted:
        from cloison.cli.help import render_verb

        output.say(render_verb(verb))
        return 0
    settings = settings_for(environ, data_root=str(flags.get("data-root", "")), run_root=str(flags.get("run-root", "")))
    if flags.get("debug"):
        settings = settings.replace(debug=True)
    return verb.action(Call(verb, values, words=words, settings=settings, environ=environ))


def find_verb(words: Sequence[str]) -> tuple[Verb | None, list[str]]:
    """The verb that the words begin with and what follows it; None when help was asked for. Raises: InvalidArgument."""
    name, rest = words[0], list(words[1:])
    if name in VERBS:
        return load_verb(VERBS[name]), rest
    if name == "help":
        return None, []
    if name not in GROUPS:
        if name in LATER:
            raise InvalidArgument(f"'{name}' is not in this release yet", hint="'cloison --help' lists what is")
        raise InvalidArgument(f"unknown command: cloison {name}\n\nRun 'cloison --help' for more information")
    if not rest or rest[0] in ("--help", "-h", "help"):
        return None, []
    target = GROUPS[name].get(rest[0])
    if target is None:
        raise InvalidArgument(
            f"unknown command: cloison {name} {rest[0]}\n\nRun 'cloison {name} --help' for more information"
        )
    return load_verb(GROUP_VERBS.get(target) or VERBS[target]), rest[1:]


def load_verb(place: str) -> Verb:
    """Import the one module that defines a verb."""
    module, attribute = place.split()
    verb = getattr(__import__(f"cloison.cli.{module}", fromlist=[attribute]), attribute)
    assert isinstance(verb, Verb)
    return verb


def _help(words: Sequence[str]) -> int:
    """``cloison --help``, ``cloison help run``, ``cloison image --help``."""
    from cloison.cli import help as pages

    wanted = list(words[1:]) if words[:1] == ["help"] else list(words[:1])
    if not wanted:
        output.say(pages.render_top(GLOBAL_FLAGS))
        return 0
    if wanted[0] in GROUPS and len(wanted) == 1:
        output.say(pages.render_group(wanted[0]))
        return 0
    verb, _ = find_verb(wanted)
    output.say(pages.render_verb(verb) if verb else pages.render_top(GLOBAL_FLAGS))
    return 0


def _traceback() -> None:
    import traceback

    output.complain(traceback.format_exc().rstrip("\n"))
