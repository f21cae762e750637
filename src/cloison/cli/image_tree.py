"""``images --tree``: every image once, under it the platforms that its index names, and what is here of each."""

from __future__ import annotations

from cloison.cli import output
from cloison.cli.table import render_table
from cloison.model.units import render_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.cli.call import Call
    from cloison.model.image import ImageListing

HEADINGS = ["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"]


def print_tree(call: Call, listings: Sequence[ImageListing]) -> None:
    """``DISK USAGE`` is unpacked, ``CONTENT SIZE`` compressed; ``U`` marks what a container was made from."""
    names: dict[str, list[str]] = {}
    for listing in listings:
        names.setdefault(listing.image.id, []).extend([listing.reference] if listing.reference else [])
    used = {container.image_id for container in call.engine.containers.list(all=True)}
    rows = [HEADINGS]
    for image in {listing.image.id: listing.image for listing in listings}.values():
        platforms = call.engine.images.platforms(image)
        disk = render_size(sum(platform.disk_bytes for platform in platforms))
        content = render_size(sum(platform.content_bytes for platform in platforms))
        first, *others = names[image.id] or ["<untagged>"]
        rows.append([first, image.id[7:19], disk, content, "U" if image.id in used else ""])
        rows += [[name, "", "", "", ""] for name in others]
        for i, platform in enumerate(platforms):
            branch = "└─" if i == len(platforms) - 1 else "├─"
            sizes = [render_size(platform.disk_bytes), render_size(platform.content_bytes)]
            rows.append([f"{branch} {platform.name}", platform.digest[7:19], *sizes, ""])
    output.say("\n".join(line.rstrip() for line in render_table(rows).split("\n")))
