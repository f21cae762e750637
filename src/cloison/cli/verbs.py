"""Every verb and the module that is imported when it is typed. Data: reading it costs one dictionary."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# "verb" or "group verb" -> "module attribute", in the order of the help
VERBS: Mapping[str, str] = {
    "run": "run RUN",
    "create": "run CREATE",
    "start": "start START",
    "exec": "exec EXEC",
    "attach": "attach ATTACH",
    "ps": "ps PS",
    "logs": "logs LOGS",
    "inspect": "inspect INSPECT",
    "stop": "lifecycle STOP",
    "kill": "lifecycle KILL",
    "restart": "lifecycle RESTART",
    "pause": "lifecycle PAUSE",
    "unpause": "lifecycle UNPAUSE",
    "update": "update UPDATE",
    "wait": "lifecycle WAIT",
    "top": "activity TOP",
    "stats": "activity STATS",
    "port": "activity PORT",
    "diff": "container_files DIFF",
    "commit": "container_files COMMIT",
    "export": "container_files EXPORT",
    "rename": "lifecycle RENAME",
    "rm": "lifecycle REMOVE",
    "pull": "push PULL",
    "push": "push PUSH",
    "images": "image_list IMAGES",
    "rmi": "images REMOVE",
    "tag": "images TAG",
    "untag": "images UNTAG",
    "history": "image_files HISTORY",
    "save": "image_files SAVE",
    "load": "images LOAD",
    "import": "images IMPORT",
    "copy": "copy COPY",
    "login": "login LOGIN",
    "logout": "login LOGOUT",
    "search": "search SEARCH",
    "list-tags": "registry LIST_TAGS",
    "explain": "explain EXPLAIN",
    "version": "system VERSION",
    "info": "system INFO",
    "_reap": "lifecycle REAP",
}

# The management forms; "" is shown in help, aliases are not
GROUPS: Mapping[str, Mapping[str, str]] = {
    "container": {
        "attach": "attach", "commit": "commit", "create": "create", "diff": "diff", "exec": "exec", "export": "export",
        "inspect": "container-inspect", "kill": "kill", "prune": "container-prune",
        "logs": "logs", "ls": "ps", "list": "ps", "ps": "ps", "pause": "pause", "port": "port", "rename": "rename",
        "restart": "restart", "rm": "rm", "remove": "rm", "run": "run", "start": "start", "stats": "stats",
        "stop": "stop", "top": "top", "unpause": "unpause", "update": "update", "wait": "wait",
    },
    "image": {
        "diff": "image-diff", "exists": "image-exists", "from-host": "image-from-host", "history": "history",
        "import": "import", "inspect": "image-inspect", "load": "load", "ls": "images", "list": "images",
        "prune": "image-prune",
        "pull": "pull", "push": "push", "rm": "rmi", "remove": "rmi", "save": "save", "search": "search",
        "tag": "tag", "untag": "untag",
        "mount": "image-mount", "tree": "image-tree",
        "unmount": "image-unmount", "umount": "image-unmount",
    },
    "manifest": {
        "add": "manifest-add", "annotate": "manifest-annotate", "create": "manifest-create",
        "exists": "manifest-exists", "inspect": "manifest-inspect", "push": "manifest-push",
        "remove": "manifest-remove", "rm": "manifest-rm",
    },
    "registry": {
        "catalog": "registry-catalog", "delete": "registry-delete", "login": "login", "logout": "logout",
        "referrers": "registry-referrers", "tags": "registry-tags",
    },
    "system": {"check": "system-check", "df": "system-df", "info": "info", "prune": "system-prune"},
}  # fmt: skip

# Verbs that exist in a group alone
GROUP_VERBS: Mapping[str, str] = {
    "container-inspect": "inspect CONTAINER_INSPECT",
    "image-inspect": "inspect IMAGE_INSPECT",
    "image-diff": "image_files DIFF",
    "image-exists": "images EXISTS",
    "image-from-host": "images FROM_HOST",
    "image-mount": "image_files MOUNT",
    "image-tree": "image_files TREE",
    "image-unmount": "image_files UNMOUNT",
    "container-prune": "prune CONTAINERS",
    "image-prune": "prune IMAGES",
    "system-check": "storage CHECK",
    "system-df": "storage DF",
    "system-prune": "prune SYSTEM",
    "manifest-add": "manifest ADD",
    "manifest-annotate": "manifest ANNOTATE",
    "manifest-create": "manifest CREATE",
    "manifest-exists": "manifest EXISTS",
    "manifest-inspect": "manifest INSPECT",
    "manifest-push": "manifest PUSH",
    "manifest-remove": "manifest DROP",
    "manifest-rm": "manifest REMOVE",
    "registry-catalog": "registry CATALOG",
    "registry-delete": "registry DELETE",
    "registry-referrers": "registry REFERRERS",
    "registry-tags": "registry TAGS",
}

GROUP_SUMMARIES: Mapping[str, str] = {
    "container": "Manage containers",
    "image": "Manage images",
    "manifest": "Manage lists of images for several platforms",
    "registry": "Manage what registries hold",
    "system": "Manage the engine",
}

# Verbs of docker that this release refuses by name
LATER = frozenset(
    "build builder buildx compose config context cp events network plugin prune secret service "
    "stack swarm trust volume".split()
)
