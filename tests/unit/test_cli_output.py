"""Tables, JSON lines, templates, filters, inspect: as docker prints them."""

from __future__ import annotations

import json
import time

import pytest

from cli_fakes import ID, SECOND, Line, image_of, line, record_of
from cloison.cli.ps import quote_command, render_ports, render_status, shorten_command
from cloison.cli.table import render_table, shorten
from cloison.cli.template import TemplateError, parse_template
from cloison.model.container import Attachment, ContainerSpec, ContainerState, MountRequest, PortMapping, Resources
from cloison.model.image import ImageConfig

__all__ = ["line"]  # the fixture

NOW = 1_800_000_000 * SECOND


# --- tables


def test_columns_are_ten_wide_and_three_apart() -> None:
    assert render_table([["A", "LONG HEADING", "LAST"], ["1", "x", "y"], ["a longer cell", "z", ""]]) == (
        "A               LONG HEADING   LAST\n"
        "1               x              y\n"
        "a longer cell   z              "
    )  # fmt: skip


def test_control_characters_in_a_cell_are_escaped() -> None:
    assert render_table([["A", "B"], ["\x1b[2J\n", "é"]]) == "A           B\n\\x1b[2J\\n   é"


def test_text_is_cut_with_an_ellipsis_that_counts() -> None:
    assert shorten("12345", 5) == "12345"
    assert shorten("123456", 5) == "1234…"


def test_a_command_is_quoted_and_cut_at_twenty() -> None:
    assert shorten_command(quote_command(("sleep", "300"))) == '"sleep 300"'
    assert shorten_command(quote_command(("a" * 30,))) == '"' + "a" * 19 + '…"'


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (ContainerState(status="running", started_ns=NOW - 5 * SECOND), "Up 5 seconds"),
        (ContainerState(status="paused", started_ns=NOW - 7200 * SECOND), "Up 2 hours (Paused)"),
        (ContainerState(status="created"), "Created"),
        (ContainerState(status="exited", exit_code=137, finished_ns=NOW - 180 * SECOND), "Exited (137) 3 minutes ago"),
        (ContainerState(status="exited", exit_code=255), "Exited (255)"),
        (ContainerState(status="dead", finished_ns=1), "Dead"),
    ],
)
def test_a_status_reads_as_dockers(state: ContainerState, text: str) -> None:
    assert render_status(state, now_ns=NOW) == text


def test_ports_are_joined_to_ranges() -> None:
    ports = [PortMapping(container_port=port, host_port=port + 8000) for port in (80, 81, 90)]
    ports += [PortMapping(container_port=53, protocol="udp", host_address="127.0.0.1", host_port=53)]
    ports += [PortMapping(container_port=80, host_address="::1", host_port=1)]
    assert render_ports(ports) == (
        "0.0.0.0:8080-8081->80-81/tcp, 0.0.0.0:8090->90/tcp, [::1]:1->80/tcp, 127.0.0.1:53->53/udp"
    )


# --- ps


def some(line: Line) -> None:
    now = time.time_ns()
    running = ContainerState(status="running", pid=7, started_ns=now - 5 * SECOND)
    exited = ContainerState(status="exited", exit_code=3, finished_ns=now - 60 * SECOND)
    web = ContainerSpec(image="web:1", labels={"tier": "front"})
    line.engine.records = [
        record_of("web", id="a" * 64, created_ns=now - 10 * SECOND, state=running, spec=web),
        record_of("old", id="b" * 64, created_ns=now - 7200 * SECOND, state=exited),
    ]


def test_ps_shows_what_runs(line: Line) -> None:
    some(line)
    assert line("ps") == 0
    heading, row = line.out.splitlines()
    assert heading == "CONTAINER ID   IMAGE     COMMAND       CREATED          STATUS         PORTS     NAMES"
    assert row == 'aaaaaaaaaaaa   web:1     "sleep 300"   10 seconds ago   Up 5 seconds             web'


def test_ps_shows_everything_when_asked(line: Line) -> None:
    some(line)
    assert line("ps", "-a", "--format", "{{.Names}}: {{.Status}}") == 0
    assert line.out == "web: Up 5 seconds\nold: Exited (3) About a minute ago\n"


def test_ps_prints_ids_alone(line: Line) -> None:
    some(line)
    assert line("ps", "-q") == 0
    assert line.out == "a" * 12 + "\n"
    assert line("ps", "-aq", "--no-trunc") == 0
    assert line.out == "a" * 64 + "\n" + "b" * 64 + "\n"
    line.engine.records = []
    assert line("ps", "-q") == 0
    assert line.out == ""


def test_ps_prints_one_json_object_a_line_with_dockers_keys(line: Line) -> None:
    some(line)
    assert line("container", "ls", "-a", "--format", "json") == 0
    rows = [json.loads(row) for row in line.out.splitlines()]
    assert [row["Names"] for row in rows] == ["web", "old"]
    assert set(rows[0]) == {
        "Command", "CreatedAt", "ID", "Image", "Labels", "LocalVolumes", "Mounts", "Names", "Networks", "Platform",
        "Ports",         "RunningFor", "Size", "State", "Status",
    }  # fmt: skip
    assert (rows[0]["Labels"], rows[0]["State"]) == ("tier=front", "running")


def test_ps_makes_tables_of_templates(line: Line) -> None:
    some(line)
    assert line("ps", "--format", "table {{.ID}}\\t{{.Names}}") == 0
    assert line.out == "CONTAINER ID   NAMES\naaaaaaaaaaaa   web\n"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["-f", "name=we"], ["web"]),
        (["-f", "name=^/old$"], ["old"]),
        (["-f", "id=bbb"], ["old"]),
        (["-f", "label=tier"], ["web"]),
        (["-f", "label=tier=back"], []),
        (["-f", "status=exited"], ["old"]),
        (["-f", "status=exited", "-f", "status=running"], ["web", "old"]),
        (["-f", "exited=3"], ["old"]),
        (["-f", "exited=0"], []),
        (["-f", "ancestor=web:1"], ["web"]),
        (["-f", "ancestor=debian:bookworm", "-f", "name=web"], []),
        (["-f", "before=web"], ["old"]),
        (["-f", "since=old"], ["web"]),
        (["-l"], ["web"]),
        (["-n", "2"], ["web", "old"]),
        (["-n", "1"], ["web"]),
    ],
)
def test_ps_filters(line: Line, words: list[str], names: list[str]) -> None:
    some(line)
    assert line("ps", "-a", "--format", "{{.Names}}", *words) == 0, line.err
    assert line.out.split() == names


def test_ps_filters_for_dead_ones_without_being_asked_for_all(line: Line) -> None:
    some(line)
    assert line("ps", "--format", "{{.Names}}", "-f", "status=exited") == 0
    assert line.out == "old\n"


@pytest.mark.parametrize(("word", "message"), [
    ("x", "bad format of filter"), ("colour=red", "invalid filter 'colour'"),
    ("status=odd", "invalid filter 'status=odd'"), ("name=(", "invalid filter")])  # fmt: skip
def test_a_bad_filter_is_said(line: Line, word: str, message: str) -> None:
    some(line)
    assert line("ps", "-f", word) == 1
    assert message in line.err


# --- images


def test_images_shows_a_table(line: Line) -> None:
    line.engine.listings = [
        image_of("127.0.0.1:5000/debian:bookworm", size_bytes=117_000_000), image_of("", letter="f", created=""),
    ]  # fmt: skip
    assert line("images") == 0
    rows = [row.split() for row in line.out.splitlines()]
    assert rows[0] == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert rows[1][:3] == ["127.0.0.1:5000/debian", "bookworm", "d" * 12] and rows[1][-1] == "117MB"
    assert rows[2] == ["<none>", "<none>", "f" * 12, "N/A", "0B"]


def test_images_are_found_by_name_filter_and_digest(line: Line) -> None:
    line.engine.listings = [
        image_of("debian:12"), image_of("debian:13", letter="a", created="2026-11-21T00:00:00Z"),
        image_of("", letter="f"), image_of("own:1", letter="b"),
    ]  # fmt: skip
    form = ["--format", "{{.Repository}}:{{.Tag}}"]
    for words, shown in (
        (["debian"], ["debian:12", "debian:13"]), (["debian:12"], ["debian:12"]), (["deb"], []),
        (["-f", "dangling=true"], ["<none>:<none>"]), (["-f", "reference=deb*:13"], ["debian:13"]),
        (["-f", "since=debian:12"], ["debian:13"]),
    ):  # fmt: skip
        assert line("images", *form, *words) == 0, line.err
        assert line.out.split() == shown, words


def test_a_digest_is_shown_where_a_registry_gave_one_to_the_repository(line: Line) -> None:
    first, second = ("sha256:" + letter * 64 for letter in "12")
    known = tuple(f"docker.io/library/debian@{digest}" for digest in (first, second))
    line.engine.listings = [
        image_of("debian:12", repo_digests=known), image_of("mine:1", repo_digests=known),
        image_of("", letter="a", repo_digests=known[:1]), image_of("own:1", letter="b"),
    ]  # fmt: skip
    form = ["--format", "{{.Repository}} {{.Tag}} {{.Digest}}"]
    shown = [
        f"debian 12 {first}", f"debian 12 {second}", "mine 1 <none>", f"debian <none> {first}", "own 1 <none>",
    ]  # fmt: skip
    assert line("images", *form) == 0
    assert line.out.splitlines() == shown
    assert line("images", "--digests") == 0
    assert [[*row.split()[:3]] for row in line.out.splitlines()[1:]] == [row.split() for row in shown]
    assert line("images") == 0
    assert [row.split()[0] for row in line.out.splitlines()[1:]] == ["debian", "mine", "debian", "own"]


def test_an_image_of_1970_is_old_and_one_without_a_date_has_none(line: Line) -> None:
    line.engine.listings = [
        image_of("a:1", created="1970-01-01T00:00:00Z"), image_of("b:1", created="0001-01-01T00:00:00Z"),
        image_of("c:1", created=""), image_of("d:1", created="yesterday"),
    ]  # fmt: skip
    assert line("images", "--format", "{{.CreatedSince}}") == 0
    old, *rest = line.out.splitlines()
    assert old.endswith(" years ago")
    assert rest == ["N/A"] * 3


def test_images_prints_each_id_once(line: Line) -> None:
    line.engine.listings = [image_of("a:1"), image_of("b:1")]
    assert line("images", "-q") == 0
    assert line.out == "d" * 12 + "\n"
    assert line("images", "-q", "--no-trunc") == 0
    assert line.out == "sha256:" + "d" * 64 + "\n"


# --- inspect


def test_inspect_prints_an_indented_array_in_dockers_shape(line: Line) -> None:
    spec = ContainerSpec(
        image="web:1", mounts=(MountRequest(type="bind", source="/a", target="/b", read_only=True),), labels={"x": "y"},
        resources=Resources(memory_bytes=64 << 20, cpu_quota_us=50_000, cpu_period_us=100_000),
    )  # fmt: skip
    place = Attachment(
        network="bridge", address="10.0.0.2", prefix=24, ports=(PortMapping(container_port=80, host_port=8080),)
    )
    state = ContainerState(status="exited", exit_code=137, oom_killed=True, started_ns=SECOND, finished_ns=2 * SECOND)
    line.engine.records = [record_of("web", spec=spec, attachment=place, state=state)]
    assert line("inspect", "web") == 0
    assert line.out.startswith('[\n    {\n        "Id": "')
    [document] = json.loads(line.out)
    assert (document["Id"], document["Name"], document["Path"], document["Args"]) == (ID, "/web", "sleep", ["300"])
    assert document["State"]["OOMKilled"] is True and document["State"]["ExitCode"] == 137
    assert document["State"]["FinishedAt"] == "1970-01-01T00:00:02Z"
    assert document["HostConfig"]["Memory"] == 64 << 20 and document["HostConfig"]["NanoCpus"] == 500_000_000
    assert document["Mounts"][0]["RW"] is False and document["Config"]["Labels"] == {"x": "y"}
    assert document["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
    assert document["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == "10.0.0.2"


def test_inspect_of_nothing_prints_an_empty_array_and_fails(line: Line) -> None:
    assert line("inspect", "nope") == 1
    assert (line.out, line.err) == ("[]\n", "cloison: No such object: nope\n")
    assert line("container", "inspect", "nope") == 1
    assert line.err == "cloison: No such container: nope\n"
    assert line("inspect", "-f", "{{.Id}}", "nope") == 1
    assert line.out == ""


def test_inspect_finds_images_too(line: Line) -> None:
    config = ImageConfig(cmd=("bash",), env=("A=1",), exposed_ports=("80/tcp",))
    known = ("docker.io/library/debian@sha256:" + "1" * 64,)
    line.engine.listings = [image_of(config=config, size_bytes=5, architecture="amd64", repo_digests=known)]
    assert line("inspect", "debian:bookworm") == 0
    [document] = json.loads(line.out)
    assert document["RepoTags"] == ["debian:bookworm"] and document["Config"]["Cmd"] == ["bash"]
    assert document["RepoDigests"] == ["debian@sha256:" + "1" * 64]
    assert line("image", "inspect", "-f", "{{.Size}} {{index .Config.Env 0}}", "debian:bookworm") == 0
    assert line.out == "5 A=1\n"
    assert line("inspect", "--type", "container", "debian:bookworm") == 1


def test_functions_leave_a_tables_headings_alone(line: Line) -> None:
    line.engine.records = [record_of("web")]
    assert line("ps", "-a", "--format", "table {{upper .Names}}\\t{{json .Image}}\\t{{truncate .ID 3}}") == 0
    heading, row = line.out.splitlines()
    assert heading.split("  ")[0] == "NAMES" and '"' not in heading and "CONTAINER ID" in heading
    assert row.split()[0] == "WEB" and row.split()[-1] == "012"


def test_a_template_that_does_not_fit_is_status_1(line: Line) -> None:
    line.engine.records = [record_of("web")]
    for template in ("{{.Nope}}", "{{range .Id}}x{{end}}", "{{index .Args 9}}"):
        assert line("inspect", "-f", template, "web") == 1, template
        assert "template" in line.err


def test_a_bad_template_is_status_64(line: Line) -> None:
    line.engine.records = [record_of("web")]
    for template in ("{{", "{{nope .Id}}", "{{if .Id}}", "{{.Id | }}"):
        assert line("inspect", "-f", template, "web") == 64, template
        assert "template" in line.err


# --- templates

VALUE = {
    "ID": "abc", "State": {"Status": "running", "Pid": 3, "Dead": False}, "List": [1, 2], "None": None, "Empty": [],
    "Map": {"b": {"x": 2}, "a": {"x": 1}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.ID}}\\t{{.State.Pid}}\\n", "abc\t3\n"),
        ("{{ .ID }}", "abc"),
        ("{{json .State}}", '{"Status":"running","Pid":3,"Dead":false}'),
        ("{{.State | json}}", '{"Status":"running","Pid":3,"Dead":false}'),
        ("{{range .List}}<{{.}}>{{end}}", "<1><2>"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range $k, $v := .Map}}{{$k}}={{$v.x}};{{end}}", "a=1;b=2;"),
        ("{{range $v := .List}}{{$v}}{{$.ID}} {{end}}", "1abc 2abc "),
        ("{{if .State.Dead}}dead{{else if .ID}}id{{else}}no{{end}}", "id"),
        ("{{with .State}}{{.Status}}{{end}}", "running"),
        ('{{if eq .State.Status "running"}}up{{end}}', "up"),
        ("{{if and .ID (not .State.Dead)}}yes{{end}}", "yes"),
        ('{{(index .Map "a").x}}', "1"),
        ("{{upper .ID}} {{.ID | title}} {{len .List}}", "ABC Abc 2"),
        ('{{join .List ","}} {{printf "%-5s|%q" .ID .ID}}', '1,2 abc  |"abc"'),
        ("{{.List}} {{.State.Dead}} {{.None}}", "[1 2] false <no value>"),
        ("{{/* said */}}a {{- .ID -}} b", "aabcb"),
        ("{{$x := .ID}}{{$x}}", "abc"),
        ('{{"a}}b"}}', "a}}b"),
        ("{{.}}" , "map[ID:abc"),
    ],
)  # fmt: skip
def test_a_template_renders_as_in_go(template: str, text: str) -> None:
    rendered = parse_template(template).render(VALUE)
    assert rendered == text or (template == "{{.}}" and rendered.startswith("map[Empty:[] ID:abc"))


@pytest.mark.parametrize(
    "template",
    ["{{", "{{}}", "{{end}}", "{{else}}", "{{range .List}}", "{{.ID.x}}", "{{.Nope}}", "{{$y}}", "{{.ID .ID}}",
     '{{"a}}',     "{{join .ID}}", "{{(.ID}}", "{{.ID)}}", "{{frob}}", "{{range .ID}}{{end}}", "{{index .List 9}}"],
)  # fmt: skip
def test_a_template_that_makes_no_sense_is_an_error_never_a_crash(template: str) -> None:
    with pytest.raises(TemplateError):
        parse_template(template).render(VALUE)
