"""Which weights trained elsewhere this process has read, so that a row can say what its model started from."""

READ: dict[str, str] = {}  # name of a file, or of a model of a hub: hash of what it holds


def weights_read() -> dict[str, str]:
    """What a row says of them: their names and, in the same order, their hashes; nothing where none were read.

    Of a file the hash is the SHA-256 of its bytes, as `sha256sum` prints it.
    """
    if not READ:
        return {}
    names = sorted(READ)
    return {"pretrained": ", ".join(names), "pretrained_hash": ", ".join(READ[name] for name in names)}
