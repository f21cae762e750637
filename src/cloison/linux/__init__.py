"""The only package that meets the kernel: mounts, cgroups, netlink, nftables, proc, safe paths."""
