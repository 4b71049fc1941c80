"""Files that outlive a crash: written beside, synced, read back, then linked to their name, so nothing is replaced.

A rename replaces what is there; a link cannot. Where links do not exist, a marker made with O_EXCL takes the name and
says in which file beside it the bytes lie.
"""

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4
from zlib import crc32

NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
MARK = b"attnbench-row "  # then the CRC and the name of the file that holds the bytes
FRESH_S = 10.0  # an empty marker whose time is no further from now is still being written; clocks differ


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Names:
    """Makes the names of folders durable up a path; one that was there when its folder was synced needs no second time.

    So a thousand cells of one process do not wait a thousand times for the folders that they share.
    """

    def __init__(self) -> None:
        self._durable: set[str] = set()

    def sync(self, folder: Path, levels: int) -> None:
        """Waits for what stands in `folder`, for its own name, and for those of so many folders above it."""
        sync_folder(folder)
        found: list[str] = []
        for _ in range(levels):
            if str(folder) in self._durable:
                break
            folder = folder.parent
            found += (entry.path for entry in os.scandir(folder))  # before the sync, which covers no later ones
            sync_folder(folder)
        self._durable.update(found)  # only now that every folder above is durable too


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents durably; it may exist."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)


def create(path: Path, data: bytes, *, owner: str, durable: bool = True, alike: bool = False) -> bool:
    """Gives `data` the name `path` for ever; False, and nothing done, if the name is taken.

    Killed at any moment, it leaves either the whole file or none, and at most one `<owner>.*.tmp` beside it.
    Not `durable`, it does not wait for the disk; for what can be found damaged and written anew.
    alike: whoever takes this name writes what is as good, so that it needs no marker where there are no links, and
    programs that know of none can read it.
    Raises OSError when the disk does not take the bytes.
    """
    draft = path.with_name(f"{owner}.{uuid4().hex}.tmp")
    try:
        write(draft, data, os.O_EXCL, durable=durable)
        if draft.read_bytes() != data:
            raise OSError(errno.EIO, "What was written reads back differently", str(draft))
        made = _link(draft, path, alike=alike)
        if durable:
            sync_folder(path.parent)
        return made
    finally:
        draft.unlink(missing_ok=True)


def write(path: Path, data: bytes, flag: int, *, durable: bool = True) -> None:
    """Writes to `path`, opened with O_EXCL or O_APPEND, and waits until the bytes are on the disk if `durable`."""
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | flag, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)


def _link(draft: Path, path: Path, *, alike: bool) -> bool:
    try:
        os.link(draft, path)
    except OSError as error:
        if draft.stat().st_nlink == 2:
            return True  # a lost reply of NFS can report failure for a link that was made
        if isinstance(error, FileExistsError):
            return False
        if error.errno in NO_LINKS:
            return _move(draft, path) if alike else _mark(draft, path)
        raise
    return True


def _move(draft: Path, path: Path) -> bool:
    """Takes the name by renaming; of two that do so at once, the later one's equal file stays."""
    if path.exists():
        return False
    draft.rename(path)
    return True


def _mark(draft: Path, path: Path) -> bool:
    """Takes the name with a marker; the draft stays, under a name of its own that no later draft can have."""
    kept = draft.with_suffix(".row")
    draft.rename(kept)
    line = MARK + f"{crc32(kept.read_bytes()):08x} {kept.name}\n".encode()
    try:
        write(path, line, os.O_EXCL)
    except FileExistsError:
        kept.unlink()
        return False
    except OSError:
        kept.unlink()  # the marker may be half there: whoever reads it finds it damaged
        raise
    return True


def read(path: Path) -> bytes:
    """The bytes that `create` gave this name. Raises FileNotFoundError if nobody did."""
    return resolve(path, path.read_bytes())


def whole(path: str, size: int) -> bytes:
    """All bytes of a file that had this size a moment ago, with the fewest questions to the file system."""
    handle = os.open(path, os.O_RDONLY)
    try:
        parts = [os.read(handle, size + 1)]
        while len(parts[0]) != size and parts[-1]:
            parts.append(os.read(handle, 2**16))
    finally:
        os.close(handle)
    return b"".join(parts)


def resolve(path: Path, raw: bytes) -> bytes:
    """The bytes that `create` gave this name, from `raw`, what lies there: through a marker, those it points at.

    Raises FileNotFoundError while a marker is only just being made; a damaged marker comes back as it is.
    """
    if not raw and abs(time.time() - path.stat().st_mtime) < FRESH_S:
        raise FileNotFoundError(errno.ENOENT, "Only just being created", str(path))
    if not raw.startswith(MARK):
        return raw
    with suppress(ValueError, OSError):
        crc, name = raw.removeprefix(MARK).decode().split()
        row = path.with_name(name).read_bytes()
        return row if crc == f"{crc32(row):08x}" else raw
    return raw


def quarantine(path: Path, raw: bytes, moved: Path) -> bool:
    """Moves a damaged file, in which `raw` was read, to the name `moved`; False if it had been replaced meanwhile.

    Another process may have moved it already, and a good file may stand in its place: that one is put back.
    """
    make_folder(moved.parent)
    try:
        path.rename(moved)
    except FileNotFoundError:
        return False
    if moved.read_bytes() != raw:
        with suppress(OSError):  # a name taken again, or no links here: then it stays where nothing is deleted
            os.link(moved, path)
            moved.unlink()
        return False
    sync_folder(moved.parent)
    sync_folder(path.parent)
    return True
