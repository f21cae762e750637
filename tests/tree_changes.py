"""One script that changes a container's files in every way a layer can carry, and what `diff` has to say of it."""

from __future__ import annotations

# Every kind of change that a layer can carry, against the image of the fixture
SCRIPT = """
set -e
echo new > /new; ln /new /again; ln -s /nowhere /dangling; mkdir -p /deep/er; touch -d @1000 /deep/er/file
mkfifo /pipe; mknod /null c 1 3; chmod 4755 /new; chown 7:8 /deep
echo more >> /etc/group; rm /etc/passwd; chmod 700 /var
rm -rf /tmp; mkdir /tmp; echo x > /tmp/inside
rm -rf /root; echo file > /root
printf 'x%.0s' $(seq 200) > name; mkdir -p "/long/$(cat name)/$(cat name)"; echo y > "/long/$(cat name)/$(cat name)/f"
rm name
dd if=/dev/zero of=/sparse bs=1 count=1 seek=1000000 2>/dev/null
"""
EXPECTED = {
    "A /new", "A /again", "A /dangling", "A /deep", "A /deep/er", "A /deep/er/file", "A /pipe", "A /null", "A /sparse",
    "A /long", f"A /long/{'x' * 200}", f"A /long/{'x' * 200}/{'x' * 200}", f"A /long/{'x' * 200}/{'x' * 200}/f",
    "C /etc", "C /etc/group", "D /etc/passwd", "C /var", "C /tmp", "A /tmp/inside", "C /root",
}  # fmt: skip
