"""The flags of ``run`` and ``create`` as one table (docker's names, kinds and help), and those that are yet to come."""

from __future__ import annotations

from cloison.cli.parser import Flag

DETACH_KEYS = Flag("--detach-keys", "string", help="Override the key sequence for detaching a container")

CREATE_FLAGS: tuple[Flag, ...] = (
    Flag("--add-host", "list", help="Add a custom host-to-IP mapping (host:ip)"),
    Flag("--annotation", "map", help="Add an annotation to the container (passed through to the OCI runtime)"),
    Flag("-a, --attach", "list", help="Attach to STDIN, STDOUT or STDERR"),
    Flag("--blkio-weight", "int", help="Block IO (relative weight), between 10 and 1000, or 0 to disable", default="0"),
    Flag("--cap-add", "list", help="Add Linux capabilities"),
    Flag("--cap-drop", "list", help="Drop Linux capabilities"),
    Flag("--cgroupns", "string", help="Cgroup namespace to use (private)"),
    Flag("--cidfile", "string", help="Write the container ID to the file"),
    Flag("--cpu-period", "int", help="Limit CPU CFS (Completely Fair Scheduler) period, in microseconds"),
    Flag("--cpu-quota", "int", help="Limit CPU CFS (Completely Fair Scheduler) quota, in microseconds"),
    Flag("-c, --cpu-shares", "int", help="CPU shares (relative weight)"),
    Flag("--cpus", "decimal", help="Number of CPUs"),
    Flag("--cpuset-cpus", "string", help="CPUs in which to allow execution (0-3, 0,1)"),
    Flag("--cpuset-mems", "string", help="MEMs in which to allow execution (0-3, 0,1)"),
    Flag("--device", "list", help="Add a host device to the container"),
    Flag("--device-read-bps", "list", help="Limit read rate (bytes per second) from a device"),
    Flag("--device-read-iops", "list", help="Limit read rate (IO per second) from a device"),
    Flag("--device-write-bps", "list", help="Limit write rate (bytes per second) to a device"),
    Flag("--device-write-iops", "list", help="Limit write rate (IO per second) to a device"),
    Flag("--disable-content-trust", help="Skip image verification", hidden=True),
    Flag("--dns", "list", help="Set custom DNS servers"),
    Flag("--dns-option, --dns-opt", "list", help="Set DNS options"),
    Flag("--dns-search", "list", help="Set custom DNS search domains"),
    Flag("--domainname", "string", help="Container NIS domain name"),
    Flag("--entrypoint", "string", help="Overwrite the default ENTRYPOINT of the image"),
    Flag("-e, --env", "list", help="Set environment variables"),
    Flag("--env-file", "list", help="Read in a file of environment variables"),
    Flag("--group-add", "list", help="Add additional groups to join"),
    Flag("-h, --hostname", "string", help="Container host name"),
    Flag("--init", help="Run an init inside the container that forwards signals and reaps processes"),
    Flag("-i, --interactive", help="Keep STDIN open even if not attached"),
    Flag("--ipc", "string", help="IPC mode to use (private, host, container:NAME)"),
    Flag("--kernel-memory", "bytes", help="Kernel memory limit", hidden=True),
    Flag("-l, --label", "list", help="Set meta data on a container"),
    Flag("--label-file", "list", help="Read in a line delimited file of labels"),
    Flag("--log-driver", "string", help="Logging driver for the container (none, local)"),
    Flag("--log-opt", "list", help="Log driver options (max-size, max-file)"),
    Flag("-m, --memory", "bytes", help="Memory limit"),
    Flag("--memory-reservation", "bytes", help="Memory soft limit"),
    Flag("--memory-swap", "bytes", help="Swap limit equal to memory plus swap: '-1' to enable unlimited swap"),
    Flag("--mount", "mount", help="Attach a filesystem mount to the container"),
    Flag("--name", "string", help="Assign a name to the container"),
    Flag("--network, --net", "network", help="Connect a container to a network (bridge, none, host, container:NAME)"),
    Flag("--no-healthcheck", help="Disable any container-specified HEALTHCHECK"),
    Flag("--oom-score-adj", "int", help="Tune host's OOM preferences (-1000 to 1000)"),
    Flag("--pid", "string", help="PID namespace to use (host, container:NAME)"),
    Flag("--pids-limit", "int", help="Tune container pids limit (set -1 for unlimited)", default="4096"),
    Flag("--platform", "string", help="Set platform if server is multi-platform capable"),
    Flag("--privileged", help="Give extended privileges to this container"),
    Flag("-p, --publish", "list", help="Publish a container's port(s) to the host"),
    Flag("-P, --publish-all", help="Publish all exposed ports to random ports"),
    Flag("--pull", "string", help="Pull image before running (always, missing, never)", default="missing"),
    Flag("-q, --quiet", help="Suppress the pull output"),
    Flag("--read-only", help="Mount the container's root filesystem as read only"),
    Flag("--restart", "string", help="Restart policy to apply when a container exits (no)", default="no"),
    Flag("--rm", help="Automatically remove the container and its associated anonymous volumes when it exits"),
    Flag("--security-opt", "list", help="Security options (seccomp=, no-new-privileges, systempaths=)"),
    Flag("--shm-size", "bytes", help="Size of /dev/shm", default="64m"),
    Flag("--stop-signal", "string", help="Signal to stop the container"),
    Flag("--stop-timeout", "int", help="Timeout (in seconds) to stop a container"),
    Flag("--sysctl", "map", help="Sysctl options"),
    Flag("--timeout", "int", help="Kill the container after this many seconds (0: never)", default="0"),
    Flag("--tmpfs", "list", help="Mount a tmpfs directory"),
    Flag("-t, --tty", help="Allocate a pseudo-TTY"),
    Flag("--ulimit", "ulimit", help="Ulimit options"),
    Flag("-u, --user", "string", help="Username or UID (format: <name|uid>[:<group|gid>])"),
    Flag("--userns", "string", help="User namespace to use (host)"),
    Flag("--uts", "string", help="UTS namespace to use (host)"),
    Flag("-v, --volume", "list", help="Bind mount a volume"),
    Flag("-w, --workdir", "string", help="Working directory inside the container"),
)  # fmt: skip

RUN_ONLY_FLAGS: tuple[Flag, ...] = (
    Flag("-d, --detach", help="Run container in background and print container ID"),
    DETACH_KEYS,
    Flag("--dry-run", help="Print the launch plan, run nothing"),
    Flag("--sig-proxy", help="Proxy received signals to the process", default="true"),
)

LATER = (
    "blkio-weight-device cgroup-conf cgroup-parent chrootdirs conmon-pidfile cpu-count cpu-percent cpu- "
    "rt-period cpu-rt-runtime creds decryption-key device-cgroup-rule env-host env-merge expose gidmap "
    "gpus group-entry health-cmd health-interval health-on-failure health-retries health-start-interval "
    "health-start-period health-timeout hosts-file hostuser http-proxy image-volume init-path io- "
    "maxbandwidth io-maxiops ip ip6 isolation link link-local-ip mac-address memory-swappiness network- "
    "alias net-alias no-hostname no-hosts oom-kill-disable passwd passwd-entry personality pidfile pod "
    "pod-id-file preserve-fd preserve-fds rdt-class read-only-tmpfs replace requires retry retry-delay "
    "rmi rootfs runtime sdnotify seccomp-policy secret shm-size-systemd storage-opt subgidname subuidname "
    "systemd tz uidmap umask unsetenv unsetenv-all use-api-socket variant volume-driver volumes-from arch "
    "authfile cert-dir cgroups os signature-policy tls-verify"
)
