# Copyright (c) greenmim authors. All rights reserved.
import os
import tempfile
from pathlib import Path
from typing import Union

from mmengine.fileio import LocalBackend, register_backend


@register_backend('greenmim.atomic')
class AtomicLocalBackend(LocalBackend):
    """Local files that are there as a whole or not at all.

    A file is written beside its final name, brought to the disk and renamed.
    An interruption leaves the file that was there before.
    """

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write bytes to a file.

        Raises:
            OSError: If it cannot be written, because the disk is full for
                example. What was written of it is removed.
        """
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(
            prefix=f'.{path.name}.', suffix='.part', dir=path.parent)
        try:
            with os.fdopen(handle, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            # A temporary file is for its owner alone.
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(part, 0o666 & ~mask)
            os.replace(part, path)
        except OSError as error:
            os.unlink(part)
            raise OSError(
                error.errno, f'{error.strerror}: cannot write {path} of '
                f'{len(obj) / 2**20:.0f} MiB. The checkpoints before it are '
                'whole: make room and resume from the latest',
                str(path)) from None
        except BaseException:
            os.unlink(part)
            raise
