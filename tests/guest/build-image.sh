#!/usr/bin/env bash
# build-image.sh PYTHON DIRECTORY
#
# Makes DIRECTORY with what the guest machine starts from: vmlinuz, initrd and root.ext4, a Debian 12 with systemd as
# PID 1 and the packages below; quota.ext4 and quota.xfs, file systems for project quotas (root/etc/fstab mounts them).
# Needs root. It is whole when the script ends well.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

python=$1 directory=$2
here=$(dirname "$(realpath "$0")")

packages=(
    linux-image-cloud-amd64 systemd-sysv dbus dbus-user-session libpam-systemd udev kmod
    apparmor apparmor-utils criu python3 busybox-static nftables iproute2 procps util-linux mount strace runc
    e2fsprogs xfsprogs quota
)
# Prebuilt for the guest's Python, whichever runs here
wheels=("pytest>=8.4" "pytest-timeout>=2.4" "urllib3>=2.2,<3" "isal>=1.7" "backports.zstd>=1.0" "rich>=13.7")

work=$(mktemp -d "$directory.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

# INITRD=No: the one below is all that it takes; services are not started, documentation is not needed
INITRD=No mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$root"

"$python" -m pip install -qq --disable-pip-version-check --no-compile --only-binary :all: --python-version 3.11 \
    --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
    --target "$root/usr/local/lib/python3.11/dist-packages" "${wheels[@]}"

cp -r "$here/root/." "$root/"
chmod 755 "$root/usr/local/sbin/guest-run"
chroot "$root" systemctl --quiet enable guest-run.service
chroot "$root" systemctl --quiet mask getty.target apt-daily.timer apt-daily-upgrade.timer fstrim.timer \
    e2scrub_all.timer systemd-networkd-wait-online.service
chroot "$root" useradd --create-home --uid 1000 user
echo guest >"$root/etc/hostname"
: >"$root/etc/machine-id"
chroot "$root" python3 -m compileall -q /usr/local/lib/python3.11/dist-packages /usr/lib/python3.11 || true

# The first steps: the modules of the disk and its file system, then the real root
version=$(basename "$root"/lib/modules/*)
early=$work/early
mkdir -p "$early"/{bin,dev,proc,new}
cp "$root/bin/busybox" "$early/bin/"
for module in virtio_pci virtio_blk quota_v2 ext4; do
    chroot "$root" modprobe --show-depends --set-version "$version" "$module" | sed -n 's/^insmod //p'
done | awk '!seen[$0]++' | while read -r module; do
    cp "$root/$module" "$early/"
    echo "insmod /$(basename "$module")" >>"$work/insmods"
done
{
    echo '#!/bin/busybox sh'
    echo '/bin/busybox --install /bin; export PATH=/bin'
    echo 'mount -t devtmpfs dev /dev'
    cat "$work/insmods"
    echo 'while [ ! -b /dev/vda ]; do sleep 0.1; done'
    echo 'mount -t ext4 /dev/vda /new && exec switch_root /new /sbin/init'
} >"$early/init"
chmod 755 "$early/init"
(cd "$early" && find . | /bin/busybox cpio -o -H newc 2>/dev/null) >"$work/initrd"

mkdir "$root/srv/ext4" "$root/srv/xfs"
mkfs.ext4 -q -F -O quota,project -E quotatype=prjquota "$work/quota.ext4" 320M
truncate -s 320M "$root/quota.xfs"
chroot "$root" mkfs.xfs -q quota.xfs # its own, so that its kernel knows every feature
mv "$root/quota.xfs" "$work/"

cp "$root/boot/vmlinuz-$version" "$work/vmlinuz"
rm -rf "$root"/boot/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
mkfs.ext4 -q -F -O quota,project -E lazy_itable_init=0 -d "$root" "$work/root.ext4" 2G
rm -rf "$root" "$early" "$work/insmods"
chmod 755 "$work"
mv -T "$work" "$directory"
