# Copyright (c) greenmim authors. All rights reserved.
import os
import uuid
from pathlib import Path
from typing import Union

from mmengine.fileio import LocalBackend, register_backend


@register_backend('greenmim.atomic')
class AtomicLocalBackend(LocalBackend):
    """Writes local files completely or not at all.

    A file is written under a temporary name, flushed to the disk and renamed.
    After an interruption the previous file is still there.
    """

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write bytes to a file.

        Raises:
            OSError: If it cannot be written, because the disk is full for
                example. The partial file is removed.
        """
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.part')
        try:
            with part.open('wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            raise OSError(
                error.errno, f'{error.strerror}: cannot write {path} of '
                f'{len(obj) / 2**20:.0f} MiB. Earlier checkpoints are '
                'intact: free some space and resume from the latest',
                str(path)) from None
        finally:
            part.unlink(missing_ok=True)
