"""The files of a run: written whole, known by their digests, used by one process at a time."""

import hashlib
import io
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save

from .config import EPOCHS_KEPT


class RunError(RuntimeError):
    """A run folder that cannot be used."""


@contextmanager
def exclusive(folder: Path, error: type[Exception]):
    """Sole use of `folder`, which is made if need be; `error` if another process has it, or it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout as cause:
        raise error(f"{folder} is in use by another process; wait for it, or stop it") from cause
    except OSError as cause:
        raise error(
            f"cannot write to {folder} ({cause}); set SMAI_RUNS to a folder that you may write"
        ) from cause
    try:
        yield
    finally:
        lock.release()


def write(file: Path, content: str | bytes) -> None:
    """Replace `file` in one step: a reader sees the old content or the new, never a part. RunError if it cannot be."""
    part = file.with_name(file.name + ".part")
    try:
        with open(part, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, file)
    except OSError as error:
        with suppress(OSError):
            part.unlink()  # on a full disk, even a part takes room
        raise RunError(
            f"cannot write {file} ({error.strerror}); make room there, or set SMAI_RUNS to another folder. "
            "What was recorded is kept, and starting again continues it"
        ) from error


class RunFolder:
    """The files of one run: config.json, history.csv, checkpoint.pt, last and best .safetensors, result.json."""

    def __init__(self, path: Path):
        self.path = Path(path)  # its name is the run's id
        self.config_file = self.path / "config.json"
        self.history_file = self.path / "history.csv"
        self.checkpoint_file = self.path / "checkpoint.pt"
        self.result_file = self.path / "result.json"
        self.weights_files = {epoch: self.path / f"{epoch}.safetensors" for epoch in EPOCHS_KEPT}

    def result(self) -> dict[str, Any] | None:
        """What the run found, or None if it has not finished; RunError if one of its files is not what it left."""
        if not self.result_file.exists():
            return None
        damaged = [self.result_file.name]
        with suppress(ValueError, LookupError, TypeError):
            found = json.loads(self.result_file.read_bytes())
            sealed = self._sealed(found)
            damaged = [
                name for name in found["files"] if found["files"][name] != sealed["files"].get(name)
            ] or damaged
            if found == sealed:
                return found
        raise RunError(
            f"{self.path / damaged[0]} is damaged, missing or another run's, by the SHA-256 in result.json; "
            f"delete {self.path} to train this run again"
        )

    def _sealed(self, result: dict[str, Any]) -> dict[str, Any]:
        """`result` with this run's id, the SHA-256 of its files and, over all that, its own."""
        files = (self.config_file, self.history_file, *self.weights_files.values())
        digests = {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
            if file.exists()
        }
        result = {**result, "run_id": self.path.name, "files": digests, "sha256": ""}
        return result | {"sha256": hashlib.sha256(json.dumps(result).encode()).hexdigest()}

    def history(self) -> pd.DataFrame:
        """One row an epoch."""
        return pd.read_csv(self.history_file)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """What `save_epoch` left last, with the history made to agree; RunError if it is damaged or another run's."""
        if not self.checkpoint_file.exists():
            write(self.history_file, "")  # rows of an epoch that no checkpoint confirms
            return None
        try:
            digest, payload = self.checkpoint_file.read_bytes().split(b"\n", 1)
            if digest.decode() != hashlib.sha256(payload).hexdigest():
                raise ValueError("its content is not what its first line is the SHA-256 of")
            checkpoint = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
            if checkpoint["run_id"] != self.path.name:
                raise ValueError(
                    f"it is of run {checkpoint['run_id']!r}, expected {self.path.name}"
                )
        except Exception as error:  # torch, too, raises many kinds
            raise RunError(
                f"{self.checkpoint_file} cannot be read ({type(error).__name__}: {error}); delete it "
                "to train this run again from the start"
            ) from error
        write(self.history_file, pd.DataFrame(checkpoint["rows"]).to_csv(index=False))
        return checkpoint

    def save_epoch(self, checkpoint: dict[str, Any]) -> None:
        """Replace the checkpoint, under the digest of its content, then the history: a kill loses no whole epoch."""
        buffer = io.BytesIO()
        torch.save(checkpoint | {"run_id": self.path.name}, buffer)
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        write(self.checkpoint_file, digest.encode() + b"\n" + buffer.getvalue())
        write(
            self.history_file, pd.DataFrame(checkpoint["rows"]).to_csv(index=False)
        )  # every digit

    def finish(self, result: dict[str, Any], states: dict[str, dict[str, torch.Tensor]]) -> None:
        """Leave the weights of `states`, by epoch kept, then the result with the digests of all files."""
        for epoch, state in states.items():
            write(
                self.weights_files[epoch],
                save({name: value.cpu().contiguous() for name, value in state.items()}),
            )
        write(self.result_file, json.dumps(self._sealed(result), indent=1) + "\n")
        self.checkpoint_file.unlink(missing_ok=True)
