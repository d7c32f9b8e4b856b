# Copyright (c) greenmim authors. All rights reserved.
"""Files inside zip and tar archives and LMDB databases.

A reader belongs to one process: forked processes share the position in an
open file.
"""
import os
import tarfile
import zipfile
from typing import Any, Iterator, Tuple

from mmengine.fileio.backends import LmdbBackend
from mmengine.logging import print_log


class ZipReader:
    """A zip archive. Its entries are names."""

    def __init__(self, path: str) -> None:
        self.file = zipfile.ZipFile(path)

    def entries(self) -> Iterator[Tuple[str, Any]]:
        """Name and entry of every file."""
        for info in self.file.infolist():
            if not info.is_dir():
                yield info.filename, info.filename

    def read(self, entry: str) -> bytes:
        """The content of an entry."""
        return self.file.read(entry)


class TarReader:
    """An uncompressed tar archive. Its entries are offsets and sizes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file = open(path, 'rb')

    def entries(self) -> Iterator[Tuple[str, Any]]:
        """Name and entry of every file before the archive is cut off."""
        try:
            with tarfile.open(self.path, 'r:') as archive:
                for member in archive:
                    if member.isreg():
                        yield member.name, (member.offset_data, member.size)
                    # tarfile would keep all members in memory.
                    archive.members = []  # type: ignore[attr-defined]
        except tarfile.ReadError as error:
            print_log(
                f'The archive {self.path} is incomplete ({error}): the files '
                'after this point are missing.',
                logger='current')

    def read(self, entry: Tuple[int, int]) -> bytes:
        offset, size = entry
        self.file.seek(offset)
        content = self.file.read(size)
        if len(content) != size:
            raise ValueError(f'the archive ends after {len(content)} of its '
                             f'{size} bytes')
        return content


class LmdbReader:
    """An LMDB database of files. Its entries are keys."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.backend = LmdbBackend(path)

    def entries(self) -> Iterator[Tuple[str, Any]]:
        import lmdb  # LmdbBackend says how it is installed
        with lmdb.open(self.path, readonly=True, lock=False) as database:
            with database.begin() as transaction:
                for key in transaction.cursor().iternext(values=False):
                    yield key.decode('ascii'), key.decode('ascii')

    def read(self, entry: str) -> bytes:
        return self.backend.get(entry)


def open_archive(path: str) -> Any:
    """The reader of an archive."""
    if os.path.exists(os.path.join(path, 'data.mdb')):
        return LmdbReader(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f'expected a zip or tar archive or a folder of LMDB, got {path!r} '
            f'(searched from {os.getcwd()!r}); use ImageFolder for a folder '
            'of images')
    if zipfile.is_zipfile(path):
        return ZipReader(path)
    try:
        tarfile.open(path, 'r:').close()
    except tarfile.ReadError as error:
        raise ValueError(
            f'expected a zip archive or an uncompressed tar archive, got '
            f'{path!r}: {error}; decompress it, which costs images no space '
            '(gunzip images.tar.gz)') from None
    return TarReader(path)
