"""How a pull looks on a pipe, on a terminal, and when nobody wants to see it."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading

from cloison.cli.progress import PlainProgress, Quiet, progress_on

TERMINAL = {"TERM": "xterm-256color"}


def play(progress: PlainProgress | Quiet | object) -> None:
    with progress as shown:  # type: ignore[attr-defined]
        shown.message("latest: Pulling from library/x[bold]")
        shown.start("0123456789ab", 1000, "Downloading")
        shown.advance("0123456789ab", 400)
        shown.finish("0123456789ab", "Download complete")
        shown.start("0123456789ab", 1000, "Extracting")
        shown.finish("0123456789ab", "Pull complete")
        shown.finish("ba9876543210", "Already exists")


def test_a_pipe_gets_dockers_plain_lines() -> None:
    stream = io.StringIO()
    play(progress_on(stream, environ=TERMINAL))
    assert stream.getvalue().splitlines() == [
        "latest: Pulling from library/x[bold]",
        "0123456789ab: Pulling fs layer",
        "0123456789ab: Download complete",
        "0123456789ab: Pull complete",
        "ba9876543210: Already exists",
    ]


def test_quiet_says_nothing() -> None:
    stream = io.StringIO()
    play(progress_on(stream, environ=TERMINAL, quiet=True))
    assert stream.getvalue() == ""


def test_lines_of_many_threads_stay_whole() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    threads = [threading.Thread(target=progress.finish, args=(f"{n:012x}", "Pull complete")) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stream.getvalue().splitlines()) == [f"{n:012x}: Pull complete" for n in range(50)]


def test_a_reader_that_went_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w", buffering=1)
    play(PlainProgress(stream))
    try:
        stream.close()
    except BrokenPipeError:
        pass


def on_terminal(**environ: str) -> str:
    """What a terminal receives from ``play``."""
    leader, follower = pty.openpty()
    received: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(leader, 65536):
                received.append(data)
        except OSError:
            pass  # EIO: the other side is closed

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(follower, "w") as stream:
        play(progress_on(stream, environ=environ))
    reader.join(10)
    os.close(leader)
    return b"".join(received).decode()


def test_a_terminal_gets_bars_and_its_cursor_back() -> None:
    shown = on_terminal(**TERMINAL)
    assert "latest: Pulling from library/x[bold]" in shown
    assert "0123456789ab: Pull complete" in shown
    assert "━" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_a_dumb_terminal_gets_plain_lines() -> None:
    assert "\x1b" not in on_terminal(TERM="dumb")


def test_no_color_is_honoured() -> None:
    assert "\x1b[3" in on_terminal(**TERMINAL)
    assert "\x1b[3" not in on_terminal(NO_COLOR="1", **TERMINAL)


def test_plain_progress_does_not_load_rich() -> None:
    script = "import sys; import cloison.cli.progress; print('rich' in sys.modules, 'urllib3' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout == "False False\n", done.stderr
