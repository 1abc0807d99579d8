"""What ships is known by its checksum: tables and weights are read only if they are what was recorded.

The checksums stand beside the files, in `SHA256SUMS`, in the format of the command of that name:
`sha256sum --check SHA256SUMS` in that folder does the same check.
"""

import hashlib
import os
import re
from pathlib import Path

from . import paths

SUMS = "SHA256SUMS"


class ChecksumError(RuntimeError):
    """A file that is missing, truncated or altered, or ships without a checksum."""


def record(file: str | os.PathLike) -> str:
    """Write the SHA-256 of `file` into the `SHA256SUMS` beside it, and return it."""
    file = Path(file)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    known = _known(file.parent) | {file.name: found}
    part = file.with_name(SUMS + ".part")
    part.write_text("".join(f"{known[name]}  {name}\n" for name in sorted(known)))
    os.replace(part, file.with_name(SUMS))
    return found


def verify(file: str | os.PathLike, error: type[ChecksumError] = ChecksumError) -> bool:
    """Whether the checksum of `file` is known; `error` if it is missing or altered, or ships without a checksum."""
    file = Path(file)
    expected = _known(file.parent).get(file.name)
    found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
    ships = file.resolve().parent in (paths.RESULTS, paths.WEIGHTS)
    if found and (found == expected or not (expected or ships)):
        return found == expected
    what = f"is truncated or altered: its SHA-256 is {found}, expected {expected} ({SUMS})"
    if not found:
        there = sorted(other.name for other in file.parent.glob(f"*{file.suffix}"))
        what = f"is missing; {file.parent} has {', '.join(there) or 'no such file'}"
    elif not expected:
        what = f"has no checksum, expected a line in {SUMS} beside it"
    raise error(
        f"{file} {what}; if it ships with the repository, `git checkout -- {file.parent}` brings it back; "
        "else train it again"
    )


def _known(folder: Path) -> dict[str, str]:
    """Name of a file -> its SHA-256, as `SHA256SUMS` has it; what is no such line says nothing."""
    text = sums.read_text(errors="replace") if (sums := folder / SUMS).exists() else ""
    return {
        name: checksum
        for checksum, name in re.findall(r"^([0-9a-f]{64}) [ *](.+)$", text, re.MULTILINE)
    }
