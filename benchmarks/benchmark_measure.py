"""How ``benchmark.py`` measures: calls in turn in one process for time, a fresh process per call for memory."""

import ctypes
import gc
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

__all__ = ['describe_machine', 'milliseconds', 'peak_mib']

_ROUNDS = 3
# Shorter calls are repeated for as long before the clock is read: caches are then those of the call itself.
_SHORTEST = 0.02
_M_MMAP_THRESHOLD, _OWN_PAGES = -3, 2**16


def milliseconds(calls: Sequence[Callable[[], object]], seconds: float, device: torch.device) -> list[float]:
    """Median time of each call: in turn, so that all meet the same disturbances, after two rounds to warm up.

    On a CPU it is the time that this process computed, which other processes lengthen less than the wall clock's; on a
    GPU the wall clock, from synchronisation to synchronisation.

    Args:
        calls: What to measure.
        seconds: Go on for as long, and for at least three rounds.
        device: Where the calls compute.

    Returns:
        Milliseconds, one per call.
    """
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    repeats = [1 + int(_SHORTEST / max(_seconds(call, 1, device), 1e-6)) for call in calls]
    began = time.perf_counter()
    while len(times[0]) < _ROUNDS or time.perf_counter() - began < seconds:
        for call, number, measured in zip(calls, repeats, times, strict=True):
            measured.append(_seconds(call, number, device))
    return [1e3 * statistics.median(measured) for measured in times]


def peak_mib(build: Callable[..., Callable[[], object]], settings: dict, device: torch.device) -> float:
    """Memory that a call takes at most above what was there before it.

    Args:
        build: Importable function that makes the call.
        settings: Its keyword arguments.
        device: Where the call computes: on a CPU the resident memory of a fresh process, on a GPU what torch allocates.

    Returns:
        MiB.
    """
    if device.type == 'cuda':
        return _peak_cuda(build(**settings))
    # What the server has imported, a fresh process need not; it looks for modules on PYTHONPATH only.
    os.environ['PYTHONPATH'] = os.pathsep.join(sys.path)
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([build.__module__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_peak, args=(sender, build, settings))
    process.start()
    sender.close()  # so that a child which dies ends the wait with EOFError
    peak = receiver.recv()
    process.join()
    return peak


def describe_machine(device: torch.device, threads: int) -> dict[str, str | int]:
    """What a reader must know to compare figures.

    Args:
        device: Where everything computes.
        threads: Of torch.

    Returns:
        Processor, GPU, versions and number of threads.
    """
    cpu_info = Path('/proc/cpuinfo')
    names = [line.split(':')[1].strip() for line in _lines(cpu_info) if line.startswith('model name')]
    return {
        'processor': names[0] if names else platform.processor(),
        'cores': multiprocessing.cpu_count(),
        'gpu': torch.cuda.get_device_name(device) if device.type == 'cuda' else 'none',
        'torch': torch.__version__,
        'python': platform.python_version(),
        'threads': threads,
    }


def _seconds(call: Callable[[], object], number: int, device: torch.device) -> float:
    clock = time.perf_counter if device.type == 'cuda' else time.process_time
    _synchronize(device)
    began = clock()
    for _ in range(number):
        call()
    _synchronize(device)
    return (clock() - began) / number


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _peak_cuda(call: Callable[[], object]) -> float:
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _send_peak(sender: Connection, build: Callable[..., Callable[[], object]], settings: dict) -> None:
    torch.set_num_threads(1)
    # glibc: a tensor gets pages of its own and gives them back. The peak is then what a call needs; else it depends on
    # how the heap is cut, and differs by half from process to process.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES)
    small = {name: min(value, 16) if isinstance(value, int) else value for name, value in settings.items()}
    build(**small)()  # loads libraries
    call = build(**settings)
    gc.collect()
    Path('/proc/self/clear_refs').write_text('5')  # Linux: forget the highest value so far
    before = _status('VmRSS')
    call()
    sender.send((_status('VmHWM') - before) / 1024)


def _status(name: str) -> int:
    """A value of this process's memory in KiB."""
    return next(int(line.split()[1]) for line in _lines(Path('/proc/self/status')) if line.startswith(name))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
