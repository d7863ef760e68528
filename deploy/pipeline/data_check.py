"""Before the first training step: every file that is trained on, read once. A bad one would show after hours.

Of the validation split only the files' hashes are read: whether one of its images is trained on too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from deploy.formats.digest import digest
from deploy.run.context import Context
from deploy.run.folder import Progress
from deploy.run.records import DataRecord
from nas.data.check import check_samples, file_sha256, in_threads
from nas.data.files import StoredFiles
from nas.data.names import printable
from nas.errors import DataError

STAGE = "data"
logger = logging.getLogger(__name__)


def check_data(context: Context) -> Iterator[Progress]:
    """Checks the training split's files, into data.json; those that have not changed since are not read again.

    Raises:
        DataError: a file of the training split cannot be used, or one of the validation split cannot be read.
    """
    val = context.check_val_data()
    data = context.training_split
    if not isinstance(data, StoredFiles):
        return
    path, stamp = context.path / DataRecord.FILE, _stamp(data, val)
    record = DataRecord.read(path) if path.exists() else None
    if record is None or record.stamp != stamp:
        total = len(data) + len(val)
        yield Progress(STAGE, 0, total, "starts")
        checked, bad = [], []
        for sample in check_samples(data, fully=False):
            checked.append(sample.digest)
            bad += [sample.error] if sample.error else []
            yield Progress(STAGE, len(checked), total, f"{len(bad)} bad" if bad else "")
        if bad:
            raise DataError(f"{bad[0]}{_more(len(bad), len(data), context.experiment.data.spec)}")
        hashes: list[bytes] = []
        for found in in_threads(lambda i: file_sha256(val[i]), range(len(val))):
            hashes.append(found)
            yield Progress(STAGE, len(checked) + len(hashes), total)
        trained = set(checked)
        in_both = tuple(printable(str(file)) for file, found in zip(val, hashes, strict=True) if found in trained)
        record = DataRecord(stamp, len(data), len(val), _of_all(checked), _of_all(hashes), in_both)
        record.write(path)
        yield Progress(STAGE, total, total, "done")
    if record.warning:
        logger.warning(record.warning)


def _more(bad: int, images: int, spec: str) -> str:
    if bad == 1:
        return ""
    return f" ({bad - 1} more of {images} training images cannot be used: `hilnas data check {spec}` names them)"


def _stamp(data: StoredFiles, val: Sequence[Path]) -> str:
    """Files that are the same by name, size and time have the same stamp."""
    files = [*(file for i in range(len(data)) for file in data.sources(i)), *val]
    return digest([_state(file) for file in files])


def _state(file: Path) -> list[str | int]:
    try:
        found = file.stat()
    except OSError:
        return [str(file)]  # the check says what is wrong with it
    return [str(file), found.st_size, found.st_mtime_ns]


def _of_all(hashes: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(hashes)).hexdigest()
