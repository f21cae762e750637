"""The main job, end to end through the command: a container's life, its exit codes, its streams."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from harness import Cloison, until

# --- one life -----------------------------------------------------------------------------------------------------


def test_run_prints_what_the_command_prints_and_leaves_nothing(cloison: Cloison, busybox_image: str) -> None:
    assert cloison.ok("run", "--rm", busybox_image, "echo", "hello") == "hello"
    assert cloison.ok("ps", "-aq") == ""


def test_a_detached_container_lives_from_run_to_rm(cloison: Cloison, busybox_image: str) -> None:
    script = "echo out; echo err >&2; exec sleep 300"
    container_id = cloison.ok("run", "-d", "--name", "life", "--network", "none", busybox_image, "sh", "-c", script)
    assert len(container_id) == 64
    row = cloison.ok("ps").splitlines()[1]
    assert row.startswith(container_id[:12]) and row.endswith("life") and "Up " in row
    until(lambda: "err" in cloison("logs", "life").stderr, what="the log")
    logs = cloison("logs", "life")
    assert (logs.stdout, logs.stderr) == ("out\n", "err\n")
    assert cloison.ok("exec", "life", "cat", "/proc/1/comm") == "sleep"
    assert cloison.ok("stop", "-t", "1", "life") == "life"
    assert cloison.ok("ps", "-q") == ""
    assert "Exited (" in cloison.ok("ps", "-a")
    assert cloison.ok("logs", "life").startswith("out")
    assert cloison.ok("rm", "life") == "life"
    assert cloison.ok("ps", "-aq") == ""


def test_create_start_wait_restart_and_kill_follow_one_container(cloison: Cloison, busybox_image: str) -> None:
    script = "trap 'exit 7' TERM; while :; do sleep 0.05; done"
    cloison.ok("create", "--name", "steps", "--network", "none", busybox_image, "sh", "-c", script)
    assert cloison.inspect("steps")["State"]["Status"] == "created"
    assert cloison.ok("start", "steps") == "steps"
    first = cloison.inspect("steps")["State"]["Pid"]
    waiter = cloison.spawn("wait", "steps", stdout=subprocess.PIPE)
    until(lambda: cloison.inspect("steps")["State"]["Running"])
    cloison.ok("stop", "-t", "5", "steps")
    assert waiter.communicate(timeout=20)[0] == b"7\n"
    cloison.ok("restart", "steps")
    assert cloison.inspect("steps")["State"]["Pid"] not in (0, first)
    assert cloison.ok("kill", "steps") == "steps"
    until(lambda: cloison.inspect("steps")["State"]["Status"] == "exited")
    assert cloison.inspect("steps")["State"]["ExitCode"] == 137
    cloison.ok("rm", "steps")


def test_rm_refuses_a_running_container_unless_forced(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("run", "-d", "--name", "busy", "--network", "none", busybox_image, "sleep", "300")
    refused = cloison("rm", "busy")
    assert refused.returncode == 1
    assert "running" in refused.stderr
    assert cloison.ok("rm", "-f", "busy") == "busy"


def test_a_name_is_taken_until_its_container_is_gone(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("create", "--name", "taken", "--network", "none", busybox_image, "true")
    again = cloison("run", "--rm", "--name", "taken", "--network", "none", busybox_image, "true")
    assert again.returncode == 125
    assert 'The container name "/taken" is already in use' in again.stderr
    cloison.ok("rm", "taken")
    cloison.ok("run", "--rm", "--name", "taken", "--network", "none", busybox_image, "true")


# --- exit codes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["BUSYBOX", "true"], 0),
        (["BUSYBOX", "false"], 1),
        (["BUSYBOX", "sh", "-c", "exit 42"], 42),
        (["BUSYBOX", "sh", "-c", "exit 255"], 255),
        (["--init", "BUSYBOX", "sh", "-c", "kill -KILL $$"], 137),
        (["--init", "BUSYBOX", "sh", "-c", "kill -TERM $$"], 143),
        (["--init", "BUSYBOX", "sh", "-c", "kill -SEGV $$"], 139),
        (["BUSYBOX", "no-such-command"], 127),
        (["BUSYBOX", "/no/such/command"], 127),
        (["BUSYBOX", "/etc"], 126),
        (["BUSYBOX", "/etc/passwd"], 126),
        (["--no-such-flag", "BUSYBOX", "true"], 125),
        (["--memory", "plenty", "BUSYBOX", "true"], 125),
        (["--pull", "never", "no/such/image", "true"], 125),
        (["--workdir", "relative", "BUSYBOX", "true"], 125),
        (["--user", "nosuchuser", "BUSYBOX", "true"], 125),
    ],
)
def test_run_exits_as_dockers_does(cloison: Cloison, busybox_image: str, words: list[str], code: int) -> None:
    argv = [busybox_image if word == "BUSYBOX" else word for word in words]
    result = cloison("run", "--rm", "--network", "none", *argv)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert bool(result.stderr) == (code in (125, 126, 127)), result.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [(["true"], 0), (["sh", "-c", "exit 3"], 3), (["sh", "-c", "kill -9 $$"], 137), (["nope"], 127), (["/etc"], 126)],
)
def test_exec_exits_as_dockers_does(cloison: Cloison, busybox_image: str, words: list[str], code: int) -> None:
    cloison.ok("run", "-d", "--name", "target", "--network", "none", busybox_image, "sleep", "300")
    try:
        assert cloison("exec", "target", *words).returncode == code
    finally:
        cloison.ok("rm", "-f", "target")


def test_a_signal_to_the_command_reaches_the_container(cloison: Cloison, busybox_image: str) -> None:
    script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    words = ["run", "--rm", "--name", "signalled", "--network", "none", busybox_image, "sh", "-c", script]
    for _ in range(10):  # the signal comes as early as it can: as soon as there is output
        with cloison.spawn(*words, stdout=subprocess.PIPE) as run:
            assert run.stdout and run.stdout.readline() == b"ready\n"
            run.send_signal(signal.SIGTERM)
            code = run.wait(timeout=20)
            if code != 9:
                cloison.ok("rm", "-f", "signalled")
            assert (code, run.stdout.read()) == (9, b"got it\n")


# --- streams ------------------------------------------------------------------------------------------------------


def test_standard_input_is_handed_over_with_i_and_empty_without(cloison: Cloison, busybox_image: str) -> None:
    assert cloison.ok("run", "--rm", "-i", "--network", "none", busybox_image, "cat", input="words\n") == "words"
    assert cloison.ok("run", "--rm", "--network", "none", busybox_image, "cat", input="words\n") == ""


@pytest.mark.parametrize("flags", ["--rm", ""], ids=["handed over", "kept in the log"])
def test_output_is_never_lost_or_cut(cloison: Cloison, busybox_image: str, flags: str) -> None:
    dd = "dd if=/dev/zero bs=8192 count=1024 2>/dev/null"
    for _ in range(20 if flags else 5):
        name = "" if flags else "--name loss"
        command = f"cloison run {flags} {name} --network none {busybox_image} {dd} | (sleep 0.1; wc -c)"
        assert cloison.shell(command).stdout.strip() == "8388608"
        if not flags:
            cloison.ok("rm", "loss")


def test_output_of_a_command_that_ends_at_once_is_never_empty(cloison: Cloison, busybox_image: str) -> None:
    for number in range(20):
        result = cloison("run", "--name", "short", "--network", "none", busybox_image, "echo", str(number))
        assert (result.returncode, result.stdout) == (0, f"{number}\n")
        assert cloison.ok("logs", "short") == str(number)
        cloison.ok("rm", "short")


def test_a_reader_that_goes_away_ends_the_pipeline_quietly(cloison: Cloison, busybox_image: str) -> None:
    result = cloison.shell(f"cloison run --rm --network none {busybox_image} yes | head -n 1")
    assert result.stdout == "y\n"
    assert "cloison" not in result.stderr  # the command itself may say that its pipe broke


def test_logs_follow_until_the_end_and_cut_where_told(cloison: Cloison, busybox_image: str) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done"
    cloison.ok("run", "-d", "--name", "talks", "--network", "none", busybox_image, "sh", "-c", script)
    assert cloison.ok("logs", "-f", "talks") == "\n".join(f"line {i}" for i in range(1, 6))
    assert cloison.ok("logs", "-n", "2", "talks") == "line 4\nline 5"
    stamped = cloison.ok("logs", "-t", "--tail", "1", "talks")
    assert stamped.endswith(" line 5") and stamped[:2] == "20" and "T" in stamped.split()[0]
    assert cloison.ok("logs", "--since", "1h", "talks").startswith("line 1")
    assert cloison.ok("logs", "--until", "1h", "talks") == ""
    cloison.ok("rm", "talks")


# --- what a user may ask for --------------------------------------------------------------------------------------


def test_environment_directory_user_and_names_are_as_asked(
    cloison: Cloison, busybox_image: str, tmp_path: Path
) -> None:
    (tmp_path / "env").write_text("# a comment\nFROM_FILE=a b\nIMPORTED\n")
    flags = ["--env-file", str(tmp_path / "env"), "-e", "GIVEN=1", "-e", "PASSED", "-w", "/tmp/deep/er"]
    flags += ["-u", "web:extra", "--group-add", "0", "--hostname", "box", "--label", "a=b"]
    script = 'echo "$FROM_FILE|$IMPORTED|$GIVEN|$PASSED|$PWD|$(id -u):$(id -g):$(id -G)|$(hostname)"'
    answer = cloison.ok("run", "--rm", *flags, busybox_image, "sh", "-c", script, IMPORTED="yes", PASSED="too")
    assert answer == "a b|yes|1|too|/tmp/deep/er|1000:2000:2000 0|box"


def test_entrypoint_replaces_the_images_and_may_be_cleared(cloison: Cloison, busybox_image: str) -> None:
    assert cloison.ok("run", "--rm", "--entrypoint", "echo", "--network", "none", busybox_image, "a", "b") == "a b"
    assert cloison.ok("run", "--rm", "--entrypoint", "", "--network", "none", busybox_image, "echo", "c") == "c"


def test_a_read_only_root_with_a_tmpfs_takes_writes_there_alone(cloison: Cloison, busybox_image: str) -> None:
    script = (
        "touch /here 2>/dev/null && echo root; touch /scratch/here && echo scratch; grep -c ' /scratch ' /proc/mounts"
    )
    flags = ["--read-only", "--tmpfs", "/scratch:size=1m,mode=1777"]
    assert cloison.ok("run", "--rm", *flags, "--network", "none", busybox_image, "sh", "-c", script) == "scratch\n1"


def test_volumes_bind_host_directories_read_write_or_read_only(
    cloison: Cloison, busybox_image: str, tmp_path: Path
) -> None:
    (tmp_path / "greeting").write_text("from outside\n")
    flags = ["-v", f"{tmp_path}:/rw", "--mount", f"type=bind,source={tmp_path},target=/ro,readonly"]
    script = "cat /ro/greeting; echo inside >/rw/answer; touch /ro/x 2>/dev/null || echo refused"
    assert cloison.ok("run", "--rm", *flags, "--network", "none", busybox_image, "sh", "-c", script) == (
        "from outside\nrefused"
    )
    assert (tmp_path / "answer").read_text() == "inside\n"


def test_a_missing_bind_source_is_made_for_v_and_refused_for_mount(
    cloison: Cloison, busybox_image: str, tmp_path: Path
) -> None:
    cloison.ok("run", "--rm", "-v", f"{tmp_path}/made:/m", "--network", "none", busybox_image, "true")
    assert (tmp_path / "made").is_dir()
    spec = f"type=bind,source={tmp_path}/absent,target=/m"
    refused = cloison("run", "--rm", "--mount", spec, "--network", "none", busybox_image, "true")
    assert refused.returncode == 125
    assert f"{tmp_path}/absent" in refused.stderr


def test_a_named_volume_keeps_its_content_between_containers(cloison: Cloison, busybox_image: str) -> None:
    run = ["run", "--rm", "-v", "kept:/data", "--network", "none", busybox_image]
    cloison.ok(*run, "sh", "-c", "echo still here >/data/file")
    assert cloison.ok(*run, "cat", "/data/file") == "still here"
    # there is no verb for volumes yet: the test removes its own
    subprocess.run(["rm", "-rf", f"{cloison.roots.data_root}/volumes/kept"], check=True)


def test_init_reaps_orphans_and_forwards_signals(cloison: Cloison, busybox_image: str) -> None:
    script = "(sleep 0.05 &) ; sleep 0.3; ps -o stat,comm | grep -c Z"
    assert cloison("run", "--rm", "--init", "--network", "none", busybox_image, "sh", "-c", script).stdout == "0\n"
    cloison.ok("run", "-d", "--init", "--name", "inner", "--network", "none", busybox_image, "sleep", "300")
    assert cloison.ok("exec", "inner", "cat", "/proc/1/comm") != "sleep"
    cloison.ok("stop", "-t", "5", "inner")
    assert cloison.inspect("inner")["State"]["ExitCode"] == 143
    cloison.ok("rm", "inner")


def test_the_cidfile_holds_the_id_and_must_not_exist(cloison: Cloison, busybox_image: str, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    run = ["run", "-d", "--rm", "--cidfile", str(file), "--network", "none", busybox_image, "sleep", "300"]
    container_id = cloison.ok(*run)
    assert file.read_text() == container_id
    assert cloison(*run).returncode == 125
    cloison.ok("rm", "-f", container_id)


# --- many at once -------------------------------------------------------------------------------------------------


def test_a_hundred_containers_in_twenties_all_succeed(cloison: Cloison, busybox_image: str) -> None:
    for _ in range(5):
        runs = [
            cloison.spawn(
                "run", "--rm", "--network", "none", busybox_image, "echo", str(number),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            )
            for number in range(20)
        ]  # fmt: skip
        for number, run in enumerate(runs):
            out, err = run.communicate(timeout=100)
            assert (run.returncode, out.decode()) == (0, f"{number}\n"), err.decode()


def test_twenty_containers_on_the_bridge_get_addresses_of_their_own(cloison: Cloison, busybox_image: str) -> None:
    script = "ip -4 -o addr show eth0 | awk '{print $4}'; sleep 2"
    runs = [
        cloison.spawn(
            "run", "--rm", busybox_image, "sh", "-c", script, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        for _ in range(20)
    ]
    addresses = [run.communicate(timeout=100)[0].decode().strip() for run in runs]
    assert [run.returncode for run in runs] == [0] * 20
    network = cloison.roots.subnet.removesuffix(".0/24")
    assert [address for address in addresses if not address.startswith(network + ".")] == []
    assert len(set(addresses)) == 20, sorted(addresses)
