# Copyright (c) greenmim authors. All rights reserved.
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Union

from greenmim.registry import DATASETS
from .archives import LmdbReader, open_archive
from .file_kinds import SIGNATURE, FileChoice
from .image_folder import ImageFolder
from .transforms import UnreadableImageError


@DATASETS.register_module()
class ImageArchive(ImageFolder):
    """All images in zip or tar archives or LMDB databases, without labels.

    Nothing is unpacked. Images that cannot be read, because the archive or the
    file in it is damaged, are replaced and listed as by :class:`ImageFolder`.
    Every worker reads the directory of a zip archive; for hundreds of
    thousands of images, tar needs less memory.

    Args:
        data_root (str | Sequence[str]): One or more archives: ``.zip``,
            uncompressed ``.tar``, or a folder of LMDB (with ``data.mdb``),
            whose keys are ASCII and whose values are image files.
        pipeline (Sequence[dict | Callable]): Transforms, from
            :class:`LoadImage` to the packing. Defaults to an empty tuple.
        extensions (Sequence[str]): File name endings of images, in lower
            case; every key of LMDB counts.
        **kwargs: ``indices``, ``lazy_init``, ``by_signature``,
            ``max_skipped`` and ``held_out`` of :class:`ImageFolder`.

    Raises:
        FileNotFoundError: If an archive is missing or there is no image.
        ValueError: If an archive has another format, or is compressed.
        UnreadableImageError: If not one of the images is readable.
    """

    def __init__(self,
                 data_root: Union[str, Sequence[str]],
                 pipeline: Sequence[Union[dict, Callable]] = (),
                 extensions: Sequence[str] = ImageFolder.EXTENSIONS,
                 **kwargs: Any) -> None:
        if isinstance(data_root, (str, Path)):
            data_root = [data_root]
        if not data_root:
            raise ValueError('expected one archive or more, got none')
        self.archives = [str(Path(path).expanduser()) for path in data_root]
        self._readers: Dict[str, Any] = {}
        self._owner = os.getpid()
        super().__init__(', '.join(self.archives), pipeline, extensions,
                         **kwargs)

    def load_data_list(self) -> List[dict]:
        data_list = []
        choice = FileChoice(self.extensions, self.by_signature)
        for archive in self.archives:
            reader = self._reader(archive)
            for name, entry in reader.entries():
                if isinstance(reader, LmdbReader) or self._is_image(
                        choice, reader, name, entry):
                    path = f'{archive}/{name}'
                    data_list.append(
                        dict(img_path=path, archive=archive, entry=entry))
        self._report(str(self.archives), len(data_list), dict(choice.left_out))
        return sorted(data_list, key=lambda data: data['img_path'])

    def _is_image(self, choice: FileChoice, reader: Any, name: str,
                  entry: Any) -> bool:
        base = name.rsplit('/', 1)[-1]
        if base[:1] == '.':
            return False
        taken = choice.by_name(base)
        if taken is not None:
            return taken
        try:
            return choice.by_head(reader.read(entry)[:SIGNATURE])
        # Archives report damage by exceptions of several kinds.
        except Exception:
            return choice.by_head(b'')

    def prepare_data(self, idx: int) -> Any:
        """Read an image and run the pipeline on it."""
        info = self.get_data_info(idx)
        reader = self._reader(info.pop('archive'))
        try:
            info['img_bytes'] = reader.read(info.pop('entry'))
        # Archives report damage by exceptions of several kinds.
        except Exception as error:
            raise UnreadableImageError(
                f'cannot read the image {info["img_path"]}: {error}'
            ) from error
        return self.pipeline(info)

    def __getstate__(self) -> dict:
        return dict(self.__dict__, _readers={})

    def _reader(self, archive: str) -> Any:
        if self._owner != os.getpid():  # a worker
            self._owner, self._readers = os.getpid(), {}
        if archive not in self._readers:
            self._readers[archive] = open_archive(archive)
        return self._readers[archive]
