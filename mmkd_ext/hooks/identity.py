"""What tells whether stored features of a teacher are those of this run: the samples, and how they are looked at."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from mmkd_ext.distill import FrozenTeacher, fingerprint

__all__ = ['dataset_fingerprint', 'sample_digests', 'view_fingerprint']

_NOT_OF_THE_VIEW = {'_device', 'batch_augments', 'who'}


def view_fingerprint(pipelines: Sequence[Any], student: nn.Module, teacher: FrozenTeacher) -> str:
    """Return a SHA-256 of all that lies between a sample and the teacher.

    Batch augmentations do not count: who stores features of training's own batches has to refuse them.

    Args:
        pipelines: Configs of the transforms.
        student: Its data preprocessor makes the inputs.
        teacher: Its adapter turns them into its own.
    """
    adapter = getattr(teacher, 'adapt', None)
    preprocessor = getattr(student, 'data_preprocessor', None)
    return fingerprint([pipelines, *(_describe(part) for part in (preprocessor, adapter))])


def sample_digests(dataset: Any, who: str) -> Iterator[tuple[int, str]]:
    """Yield for each sample its ``sample_idx``, or its position, and a digest of all that is known of it.

    In-memory images count with their pixels, files with their path and size, and labels count too, the pipeline not.

    Args:
        dataset: A data set of mmengine.
        who: Name of the caller in messages.

    Raises:
        TypeError: The data set tells nothing of its samples, or something without fingerprint.
    """
    if not hasattr(dataset, 'get_data_info'):
        raise TypeError(
            f'{who}: expected a data set with get_data_info() but got {type(dataset).__name__}, whose samples cannot '
            'be told apart'
        )
    for position in range(len(dataset)):
        info = dataset.get_data_info(position)
        path = info.get('img_path') or ''
        size = os.path.getsize(path) if os.path.isfile(path) else None
        try:
            digest = fingerprint([dict(info), size])
        except TypeError as error:
            raise TypeError(f'{who}: expected samples described by numbers, text and arrays but {error}') from error
        yield info.get('sample_idx', position), digest


def dataset_fingerprint(dataset: Any, who: str) -> str:
    """Return a SHA-256 of all samples in their order; arguments and errors are those of :func:`sample_digests`."""
    return fingerprint([digest for _, digest in sample_digests(dataset, who)])


def _describe(part: Any) -> dict[str, Any]:
    """Return settings and buffers of a data preprocessor or an adapter; what has no fingerprint counts by its class."""
    if part is None:
        return {}
    names = vars(part).keys() - vars(nn.Module()).keys() - _NOT_OF_THE_VIEW
    settings = {name: _plain(vars(part)[name]) for name in names}
    buffers = dict(part.named_buffers()) if isinstance(part, nn.Module) else {}
    return {'type': type(part), 'settings': settings, 'buffers': buffers}


def _plain(value: Any) -> Any:
    try:
        fingerprint(value)
    except TypeError:
        return type(value)
    return value
