"""A container as Docker's ``inspect`` shows it (Engine API, ContainerInspect)."""

from __future__ import annotations

from cloison.model.units import render_rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.model.container import (
        Attachment,
        ContainerRecord,
        ContainerSpec,
        ContainerState,
        DeviceRate,
        MountRequest,
        PortMapping,
    )


def container_document(record: ContainerRecord) -> dict[str, object]:
    """The whole document; keys and units are Docker's."""
    spec = record.spec
    return {
        "Id": record.id,
        "Created": render_rfc3339(record.created_ns),
        "Path": record.argv[0] if record.argv else "",
        "Args": list(record.argv[1:]),
        "State": _state(record.state),
        "Image": record.image_id,
        "Name": f"/{record.name}",
        "RestartCount": 0,
        "Driver": "overlay",
        "Platform": spec.platform or "linux",
        "AppArmorProfile": spec.apparmor,
        "HostConfig": _host_config(spec),
        "Mounts": [_mount(mount) for mount in spec.mounts],
        "Config": _config(record),
        "NetworkSettings": _network(record.attachment),
    }


def _state(state: ContainerState) -> dict[str, object]:
    status = state.status
    return {
        "Status": status,
        "Running": status in ("running", "paused"),
        "Paused": status == "paused",
        "Restarting": False,
        "OOMKilled": state.oom_killed,
        "Dead": status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": render_rfc3339(state.started_ns),
        "FinishedAt": render_rfc3339(state.finished_ns),
        "Reason": state.reason,
        "MemoryPeak": state.memory_peak_bytes,
    }


def _config(record: ContainerRecord) -> dict[str, object]:
    spec = record.spec
    return {
        "Hostname": spec.hostname or record.id[:12],
        "Domainname": spec.domainname,
        "User": record.user,
        "AttachStdin": spec.interactive,
        "AttachStdout": True,
        "AttachStderr": True,
        "ExposedPorts": {port: {} for port in record.exposed_ports},
        "Tty": spec.tty,
        "OpenStdin": spec.interactive,
        "StdinOnce": spec.interactive,
        "Env": list(record.env),
        "Cmd": list(spec.command) or list(record.argv),
        "Image": spec.image,
        "Volumes": {target: {} for target in record.volumes} or None,
        "WorkingDir": record.workdir,
        "Entrypoint": list(spec.entrypoint) if spec.entrypoint else None,
        "Labels": {**record.labels, **spec.labels},
        "StopSignal": record.stop_signal,
        "StopTimeout": spec.stop_timeout_s,
    }


def _host_config(spec: ContainerSpec) -> dict[str, object]:
    limits = spec.resources
    return {
        "Binds": [f"{m.source}:{m.target}{':ro' if m.read_only else ''}" for m in spec.mounts if m.type == "bind"]
        or None,
        "LogConfig": _log_config(spec),
        "NetworkMode": spec.network,
        "PortBindings": _bindings(spec.ports),
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": spec.auto_remove,
        "CapAdd": list(spec.cap_add) or None,
        "CapDrop": list(spec.cap_drop) or None,
        "CgroupnsMode": "private",
        "Dns": list(spec.dns),
        "DnsOptions": list(spec.dns_options),
        "DnsSearch": list(spec.dns_search),
        "ExtraHosts": list(spec.extra_hosts) or None,
        "GroupAdd": list(spec.groups) or None,
        "IpcMode": spec.ipc_mode or "private",
        "Init": spec.init,
        "OomScoreAdj": limits.oom_score_adj,
        "PidMode": spec.pid_mode,
        "Privileged": spec.privileged,
        "PublishAllPorts": spec.publish_all,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": _security(spec),
        "Sysctls": dict(spec.sysctls),
        "Tmpfs": {m.target: ",".join(m.options) for m in spec.mounts if m.type == "tmpfs"},
        "UTSMode": spec.uts_mode,
        "ShmSize": spec.shm_size_bytes,
        "Runtime": "cloison",
        **_limits(spec),
        "Devices": [
            {"PathOnHost": d.source, "PathInContainer": d.target, "CgroupPermissions": d.access} for d in spec.devices
        ],
        "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in spec.ulimits],
    }


def _limits(spec: ContainerSpec) -> dict[str, object]:
    limits = spec.resources
    return {
        "Memory": limits.memory_bytes or 0,
        "MemoryReservation": limits.memory_reservation_bytes or 0,
        "MemorySwap": limits.memory_swap_bytes or 0,
        "NanoCpus": _nano_cpus(limits.cpu_quota_us, limits.cpu_period_us),
        "CpuShares": limits.cpu_shares or 0,
        "CpuPeriod": limits.cpu_period_us or 0,
        "CpuQuota": limits.cpu_quota_us or 0,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "PidsLimit": limits.pids_limit,
        "BlkioWeight": limits.blkio_weight or 0,
        "BlkioDeviceReadBps": _rates(limits.read_bps),
        "BlkioDeviceWriteBps": _rates(limits.write_bps),
        "BlkioDeviceReadIOps": _rates(limits.read_iops),
        "BlkioDeviceWriteIOps": _rates(limits.write_iops),
    }


def _nano_cpus(quota_us: int | None, period_us: int | None) -> int:
    return quota_us * 1_000_000_000 // period_us if quota_us and period_us else 0


def _rates(rates: Sequence[DeviceRate]) -> list[dict[str, object]] | None:
    return [{"Path": rate.path, "Rate": rate.rate} for rate in rates] or None


def _log_config(spec: ContainerSpec) -> dict[str, object]:
    if spec.no_log:
        return {"Type": "none", "Config": {}}
    return {"Type": "local", "Config": {"max-size": str(spec.log_max_bytes), "max-file": str(spec.log_max_files)}}


def _security(spec: ContainerSpec) -> list[str] | None:
    options = ["no-new-privileges"] if spec.no_new_privileges else []
    if spec.seccomp != "default":
        options.append(f"seccomp={'unconfined' if spec.seccomp == 'unconfined' else 'profile'}")
    if spec.apparmor:
        options.append(f"apparmor={spec.apparmor}")
    if spec.unmask:
        options.append("systempaths=unconfined")
    return options or None


def _mount(mount: MountRequest) -> dict[str, object]:
    return {
        "Type": mount.type,
        **({"Name": mount.source} if mount.type == "volume" else {}),
        "Source": mount.source if mount.type == "bind" else "",
        "Destination": mount.target,
        "Mode": ",".join(mount.options),
        "RW": not mount.read_only,
        "Propagation": mount.propagation or ("rprivate" if mount.type == "bind" else ""),
    }


def _bindings(ports: Sequence[PortMapping]) -> dict[str, list[dict[str, str]]]:
    """``{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}``."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        host_port = str(port.host_port) if port.host_port else ""
        key = f"{port.container_port}/{port.protocol}"
        bindings.setdefault(key, []).append({"HostIp": port.host_address, "HostPort": host_port})
    return bindings


def _network(attachment: Attachment | None) -> dict[str, object]:
    if attachment is None:
        return {"Ports": {}, "IPAddress": "", "IPPrefixLen": 0, "Gateway": "", "MacAddress": "", "Networks": {}}
    place: dict[str, object] = {
        "IPAddress": attachment.address,
        "IPPrefixLen": attachment.prefix,
        "Gateway": attachment.gateway,
        "MacAddress": attachment.mac,
    }
    published = _bindings([port.replace(host_address=port.host_address or "0.0.0.0") for port in attachment.ports])
    return {"Ports": published, **place, "Networks": {attachment.network: place}}
