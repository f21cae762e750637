"""Networks: what a container needs to be reachable, from an address lease to a published port.

`bridge` is the room's front: lease, connect, disconnect, sweep. Below it `construction` builds the bridge and its table
once, `ipam` and `ports` keep claims as files, `firewall` writes rules and map elements. `names` renders hosts and
resolv.conf.
Not here: the namespace, which the launcher makes with the container and which dies with it.
"""
