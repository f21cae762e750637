"""`image mount`: an image's files at a place where people can look into them, read-only, until they are unmounted.

The mount itself is the record: what is mounted below the run root is an image that is in use. A reboot ends it.
"""

from __future__ import annotations

import os

from cloison.errors import Conflict, NotFound, Unsupported
from cloison.linux.host_mounts import mountpoints, unmount
from cloison.snapshots.drivers import open_snapshots
from cloison.store.atomic import make_private_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloison.model.image import Image
    from cloison.model.settings import Settings


def mounted_images(settings: Settings) -> Mapping[str, str]:
    """Where images are mounted, by their ids."""
    folder = _folder(settings)
    return {f"sha256:{os.path.basename(path)}": path for path in mountpoints(folder)}


def mount_image(image: Image, *, settings: Settings) -> str:
    """The directory; one that is mounted already stays. The caller keeps the image from being removed.

    Raises: Unsupported where the kernel cannot.
    """
    target = f"{_folder(settings)}/{image.id.partition(':')[2]}"
    if image.id in mounted_images(settings):
        return target
    make_private_directory(target)
    try:
        open_snapshots(settings).show(image.layers, target)
    except OSError as err:
        os.rmdir(target)
        raise Unsupported(f"cannot mount image {image.id[7:19]}", why=os.strerror(err.errno or 0).lower()) from err
    return target


def unmount_image(image: Image, *, settings: Settings) -> None:
    """Raises: NotFound when it is not mounted, Conflict when somebody has put another mount into it."""
    target = mounted_images(settings).get(image.id)
    if target is None:
        raise NotFound(f"image {image.id[7:19]} is not mounted")
    unmount(target)
    try:
        os.rmdir(target)
    except OSError as err:
        raise Conflict(f"cannot remove {target}", why=os.strerror(err.errno or 0).lower()) from err


def _folder(settings: Settings) -> str:
    return f"{settings.run_root}/image-mounts"
