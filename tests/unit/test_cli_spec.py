"""The words of run and create become a ContainerSpec, by docker's rules."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli_fakes import Line, line
from cloison.model.container import DeviceRate, DeviceRequest, MountRequest, PortMapping, Ulimit

__all__ = ["line"]  # the fixture


def refused(line: Line, *words: str) -> str:
    """The first line of the complaint about ``create WORDS IMAGE``, which must be status 125."""
    assert line("create", *words, "img") == 125, line.out
    assert not line.engine.calls
    return line.err.splitlines()[0]


def test_plain_words_are_image_and_command(line: Line) -> None:
    spec = line.spec("img", "ls", "-l")
    assert (spec.image, spec.command, spec.entrypoint, spec.network, spec.pull) == (
        "img",
        ("ls", "-l"),
        None,
        "bridge",
        "missing",
    )


def test_simple_flags_reach_their_fields(line: Line) -> None:
    spec = line.spec(
        "-it", "--rm", "--init", "--read-only", "--name", "n", "-h", "host", "-w", "/w", "-u", "1:2", "--group-add",
        "a", "--group-add", "b", "--cap-add", "NET_ADMIN", "--cap-drop", "ALL", "--dns", "1.1.1.1", "--dns-opt",
        "ndots:1",
        "--stop-signal", "INT", "--stop-timeout", "3", "--shm-size", "1g", "--sysctl", "a.b=1", "--platform",
        "linux/arm64", "--pull", "never", "-P", "--annotation", "x=y", "--pid", "host", "--ipc", "container:c", "--uts",
        "host", "img",
    )  # fmt: skip
    assert spec.tty and spec.interactive and spec.auto_remove and spec.init and spec.read_only and spec.publish_all
    assert (spec.name, spec.hostname, spec.workdir, spec.user, spec.groups) == ("n", "host", "/w", "1:2", ("a", "b"))
    assert (spec.cap_add, spec.cap_drop, spec.dns, spec.dns_options) == (
        ("NET_ADMIN",),
        ("ALL",),
        ("1.1.1.1",),
        ("ndots:1",),
    )
    assert (spec.stop_signal, spec.stop_timeout_s, spec.shm_size_bytes) == ("INT", 3, 1 << 30)
    assert (spec.sysctls, spec.platform, spec.pull) == ({"a.b": "1"}, "linux/arm64", "never")
    assert (spec.annotations, spec.pid_mode, spec.ipc_mode, spec.uts_mode) == (
        {"x": "y"},
        "host",
        "container:c",
        "host",
    )


def test_an_empty_entrypoint_clears_and_another_replaces(line: Line) -> None:
    assert line.spec("--entrypoint", "", "img").entrypoint == ()
    assert line.spec("--entrypoint", "/bin/x", "img").entrypoint == ("/bin/x",)


def test_limits_reach_the_resources(line: Line) -> None:
    limits = line.spec(
        "-m", "64m", "--memory-swap", "128m", "--memory-reservation", "32m", "--cpus", "0.5", "-c", "512",
        "--cpuset-cpus", "0-1", "--pids-limit", "100", "--blkio-weight", "300", "--device-read-bps", "/dev/sda:1mb",
        "--device-write-iops", "/dev/sda:50", "--oom-score-adj", "500", "img",
    ).resources  # fmt: skip
    assert (limits.memory_bytes, limits.memory_swap_bytes, limits.memory_reservation_bytes) == (
        64 << 20,
        128 << 20,
        32 << 20,
    )
    assert (limits.cpu_quota_us, limits.cpu_period_us, limits.cpu_shares, limits.cpuset_cpus) == (
        50_000,
        100_000,
        512,
        "0-1",
    )
    assert (limits.pids_limit, limits.blkio_weight, limits.oom_score_adj) == (100, 300, 500)
    assert limits.read_bps == (DeviceRate(path="/dev/sda", rate=1 << 20),)
    assert limits.write_iops == (DeviceRate(path="/dev/sda", rate=50),)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory-swap", "1g"], "--memory-swap needs --memory"),
        (["-m", "64m", "--memory-swap", "1m"], "larger than memory"),
        (["--cpus", "1", "--cpu-quota", "5000"], "conflicting options"),
        (["-w", "relative"], "needs to be an absolute path"),
        (["--cpus", "0.001"], "at least 0.01"),
        (["--pids-limit", "0"], "--pids-limit"),
        (["--blkio-weight", "5"], "blkio weight"),
        (["--oom-score-adj", "2000"], "oom score adj"),
        (["--device-read-bps", "sda:1m"], "bad format for device path"),
        (["--device-read-bps", "/dev/sda:fast"], "invalid rate for device"),
        (["--ulimit", "files=1"], "invalid ulimit type: files"),
        (["--ulimit", "nofile=9:5"], "soft limit must be less than or equal to hard limit"),
        (["--shm-size", "0"], "--shm-size"),
        (["--pull", "sometimes"], "invalid pull option"),
        (["--restart", "always"], "--restart always is not supported yet"),
        (["--network", "a", "--network", "b"], "more than one --network"),
        (["--add-host", "a:b"], "invalid IP address in add-host"),
        (["--security-opt", "magic"], "invalid --security-opt"),
        (["--security-opt", "apparmor="], "invalid --security-opt"),
        (["--security-opt", "apparmor=a\nb"], "invalid --security-opt"),
        (["--security-opt", "seccomp=/nowhere"], "opening seccomp profile"),
        (["--log-driver", "syslog"], "log driver 'syslog' is not supported"),
        (["--log-opt", "max-size=big"], "invalid log option max-size"),
        (["-e", "=x"], "invalid environment variable: =x"),
        (["-l", "=x"], "invalid label format"),
        (["-a", "everything"], "valid streams are"),
        (["--device", "sda"], "not an absolute path"),
        (["--device", "/dev/a:/b:rx"], "bad mode specified: rx"),
        (["--env-file", "/nowhere"], "open /nowhere: no such file or directory"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_before_anything_is_asked(line: Line, words: list[str], message: str) -> None:
    assert message in refused(line, *words)


def test_no_privileges_are_gained_unless_the_user_says_so(line: Line) -> None:
    assert line.spec("img").no_new_privileges
    assert not line.spec("--privileged", "img").no_new_privileges
    assert line.spec("--privileged", "--security-opt", "no-new-privileges", "img").no_new_privileges
    assert not line.spec("--security-opt", "no-new-privileges=false", "img").no_new_privileges


def test_security_options_reach_their_fields(line: Line, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert line.spec("--security-opt", f"seccomp={profile}", "img").seccomp == profile.read_text()
    spec = line.spec("--security-opt", "seccomp:unconfined", "--security-opt", "systempaths=unconfined", "img")
    assert (spec.seccomp, spec.unmask) == ("unconfined", True)


def test_devices_and_ulimits(line: Line) -> None:
    spec = line.spec(
        "--device", "/dev/a", "--device", "/dev/a:/dev/b", "--device", "/dev/a:r", "--device", "/dev/a:/dev/b:rw",
        "--ulimit", "nofile=10:20", "--ulimit", "core=-1", "img",
    )  # fmt: skip
    assert spec.devices == (
        DeviceRequest(source="/dev/a", target="/dev/a"), DeviceRequest(source="/dev/a", target="/dev/b"),
        DeviceRequest(source="/dev/a", target="/dev/a", access="r"),
        DeviceRequest(source="/dev/a", target="/dev/b", access="rw"),
    )  # fmt: skip
    assert spec.ulimits == (Ulimit(name="nofile", soft=10, hard=20), Ulimit(name="core", soft=-1, hard=-1))


# --- environment and labels


def test_a_bare_variable_is_imported_and_an_unset_one_removed(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "yes")
    monkeypatch.delenv("NOT_HERE", raising=False)
    assert line.spec("-e", "A=1", "-e", "HERE", "-e", "NOT_HERE", "-e", "A=2", "img").env == (
        "A=2",
        "HERE=yes",
        "NOT_HERE",
    )


def test_a_file_of_variables_is_taken_verbatim(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "yes")
    monkeypatch.delenv("NOT_HERE", raising=False)
    file = tmp_path / "env"
    file.write_bytes(b'\xef\xbb\xbf# comment\n\n  A="quoted" $X \\n  \r\nHERE\nNOT_HERE\nB=1\nC=a=b\n')
    spec = line.spec("-e", "B=2", "--env-file", str(file), "img")
    assert spec.env == ('A="quoted" $X \\n  ', "HERE=yes", "B=2", "C=a=b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A=1\nb c=2\n", "variable 'b c' on line 2 contains whitespaces"),
        (b"=1\n", "no variable name on line 1"),
        (b"A=\xff\n", "line 1 is not UTF-8"),
        (b"A=" + b"x" * (64 << 10) + b"\n", "line 1 is longer than 64 KiB"),
        (b"A=\0\n", "NUL"),
    ],
)
def test_a_bad_file_of_variables_is_named_with_the_line(
    line: Line, tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "env"
    file.write_bytes(content)
    complaint = refused(line, "--env-file", str(file))
    assert message in complaint and str(file) in complaint


def test_labels_come_from_files_and_flags(line: Line, tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text("a=1\nbare\n")
    assert line.spec("--label-file", str(file), "-l", "a=2", "-l", "x", "img").labels == {"a": "2", "bare": "", "x": ""}


# --- ports


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [("", 0, 80, "tcp")]),
        ("8080:80", [("", 8080, 80, "tcp")]),
        ("8080:80/udp", [("", 8080, 80, "udp")]),
        ("127.0.0.1:8080:80", [("127.0.0.1", 8080, 80, "tcp")]),
        ("127.0.0.1::80", [("127.0.0.1", 0, 80, "tcp")]),
        ("[::1]:8080:80", [("::1", 8080, 80, "tcp")]),
        ("8000-8001:80-81", [("", 8000, 80, "tcp"), ("", 8001, 81, "tcp")]),
        ("80-81", [("", 0, 80, "tcp"), ("", 0, 81, "tcp")]),
        ("published=8080,target=80,protocol=udp", [("", 8080, 80, "udp")]),
    ],
)  # fmt: skip
def test_ports_are_published(line: Line, text: str, ports: list[tuple[str, int, int, str]]) -> None:
    assert line.spec("-p", text, "img").ports == tuple(
        PortMapping(host_address=a, host_port=h, container_port=c, protocol=p) for a, h, c, p in ports
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "80:",
        "0",
        "65536",
        "80/icmp",
        "x:80:80",
        "8000-8002:80-81",
        "82-80",
        "1.2.3.4.5:80:80",
        "8000-8001:80",
        "a=b",
    ],
)
def test_a_bad_port_is_refused(line: Line, text: str) -> None:
    assert f'invalid argument "{text}" for "-p, --publish" flag' in refused(line, "-p", text)


# --- mounts


@pytest.mark.parametrize(
    ("words", "mount"),
    [
        (["-v", "/a:/b"], MountRequest(type="bind", source="/a", target="/b", create_source=True)),
        (["-v", "/a:/b:ro,rshared"], MountRequest(
            type="bind", source="/a", target="/b", create_source=True, read_only=True, propagation="rshared")),
        (["-v", "./a:/b:z"], MountRequest(type="bind", source=os.path.abspath("a"), target="/b", create_source=True)),
        (["-v", "data:/b"], MountRequest(type="volume", source="data", target="/b")),
        (["-v", "/b"], MountRequest(type="volume", target="/b")),
        (["--tmpfs", "/t:size=1m,ro"], MountRequest(type="tmpfs", target="/t", options=("size=1m",), read_only=True)),
        (["--mount", "type=bind,src=/a,dst=/b,readonly"], MountRequest(
            type="bind", source="/a", target="/b", read_only=True)),
        (["--mount", "type=bind,source=/a,target=/b,bind-recursive=disabled,bind-propagation=slave"], MountRequest(
            type="bind", source="/a", target="/b", recursive=False, propagation="slave")),
        (["-v", "/a:/b:rro"], MountRequest(
            type="bind", source="/a", target="/b", create_source=True, read_only=True)),
        (["--mount", "type=bind,source=/a,target=/b,ro,bind-recursive=writable"], MountRequest(
            type="bind", source="/a", target="/b", read_only=True, writable_below=True)),
        (["--mount", "type=bind,source=/a,target=/b,ro,bind-propagation=rprivate,bind-recursive=readonly"],
         MountRequest(type="bind", source="/a", target="/b", read_only=True, propagation="rprivate")),
        (["--mount", "type=bind,source=/a,target=/b,bind-nonrecursive"], MountRequest(
            type="bind", source="/a", target="/b", recursive=False)),
        (["--mount", "target=/b"], MountRequest(type="volume", target="/b")),
        (["--mount", "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770"], MountRequest(
            type="tmpfs", target="/t", options=("size=1048576", "mode=1770"))),
        (["--mount", 'type=bind,"src=/a,b",dst=/b'], MountRequest(type="bind", source="/a,b", target="/b")),
    ],
)  # fmt: skip
def test_mounts_are_understood(line: Line, words: list[str], mount: MountRequest) -> None:
    assert line.spec(*words, "img").mounts == (mount,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-v", "/a:b"], "must be absolute"),
        (["-v", "/a:/"], "destination can't be '/'"),
        (["-v", "a/b:/c"], "invalid characters for a local volume name"),
        (["-v", "/a:/b:wr"], "invalid mode: wr"),
        (["-v", "/a:/b:ro:x"], "invalid volume specification"),
        (["-v", ":/b"], "invalid volume specification"),
        (["-v", "~/a:/b"], "shell"),
        (["--mount", "type=bind,target=/b"], "source is required"),
        (["--mount", "type=bind,source=/a"], "target is required"),
        (["--mount", "type=magic,target=/b"], "mount type 'magic' is not supported"),
        (["--mount", "target=/b,colour=red"], "unexpected key 'colour' in 'colour=red'"),
        (["--mount", "type=bind, source=/a,target=/b"], "should not have whitespace"),
        (["--mount", "type=bind,source=a,target=/b"], "must be absolute"),
        (["--mount", "type=tmpfs,source=a,target=/b"], "must not be specified"),
        (["--mount", "target=/b,bind-propagation=slave"], "cannot mix"),
        (["--mount", "target=/b,readonly=perhaps"], "invalid value for readonly"),
        (["--mount", "target=/b,bind-recursive=enabled"], "cannot mix"),
        (["--mount", "type=bind,source=/a,target=/b,bind-recursive=yes"], "enabled, disabled, writable, readonly"),
        (["--mount", "type=bind,source=/a,target=/b,bind-recursive=writable"], "requires 'readonly'"),
        (["--mount", "type=bind,source=/a,target=/b,ro,bind-recursive=readonly"], "bind-propagation=rprivate"),
        (["--mount", 'target="/b'], "bare quote"),
        (["-v", "/a:/c", "--tmpfs", "/c"], "duplicate mount point: /c"),
    ],
)  # fmt: skip
def test_a_bad_mount_is_refused(line: Line, words: list[str], message: str) -> None:
    assert message in refused(line, *words)


# --- cidfile


def test_the_id_is_written_to_the_cidfile(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    assert line("create", "--cidfile", str(path), "img") == 0
    assert path.read_text() == line.out.strip()


def test_an_existing_cidfile_is_refused_and_kept(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    path.write_text("old")
    assert "container ID file found" in refused(line, "--cidfile", str(path))
    assert path.read_text() == "old"


def test_a_failed_create_takes_its_cidfile_away(line: Line, tmp_path: Path) -> None:
    from cloison.errors import Unavailable

    line.engine.errors["create"] = Unavailable("no disk")
    path = tmp_path / "cid"
    assert line("create", "--cidfile", str(path), "img") == 125
    assert not path.exists()
