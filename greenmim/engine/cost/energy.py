# Copyright (c) greenmim authors. All rights reserved.
"""Energy of the devices that train."""
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, Optional

import torch

# World average of electricity generation in 2022, grams of CO2 per kWh (IEA,
# Electricity 2024); that of a supplier differs.
GRAMS_PER_KWH = 460.

POWERCAP = Path('/sys/class/powercap')


class EnergyMeter:
    """Energy since :meth:`start`, in joules.

    The first of these sources that is available is used: a constant power
    given by the user; NVML for the GPUs that this process sees (needs
    ``nvidia-ml-py``), sampled at every call; the counters of the processor
    packages (RAPL on Linux, usually readable by root alone); codecarbon, where
    it is installed, which estimates processor and memory by type and load.

    Args:
        watts (float, optional): The constant power of the entire machine.
            Defaults to None.
    """

    def __init__(self, watts: Optional[float] = None) -> None:
        self.watts = watts
        self.source = self._find_source()
        self._joules = 0.
        self._counters: Dict[Path, int] = {}
        self._time = time.perf_counter()
        self._tracker: Any = None

    def _find_source(self) -> str:
        if self.watts is not None:
            return f'{self.watts:g} W, as given'
        if torch.cuda.is_available():
            try:
                torch.cuda.power_draw()
                return 'the GPUs by NVML'
            except (ModuleNotFoundError, RuntimeError):
                return ''
        if _read_rapl():
            return 'the processor by RAPL'
        if find_spec('codecarbon') is not None:
            return 'processor and memory as codecarbon estimates them'
        return ''

    def start(self) -> None:
        """Set the meter to zero."""
        self._joules = 0.
        self._counters = _read_rapl()
        self._time = time.perf_counter()
        if 'codecarbon' in self.source:
            self._start_tracker()

    def _start_tracker(self) -> None:
        if self._tracker is None:
            from codecarbon import OfflineEmissionsTracker
            self._tracker = OfflineEmissionsTracker(
                country_iso_code='USA',  # affects emissions, not energy
                output_methods=[],
                log_level='error')
        else:
            self._tracker.stop_task()
        self._tracker.start_task()

    def joules(self) -> Optional[float]:
        """The energy so far; None without a source."""
        if not self.source:
            return None
        now = time.perf_counter()
        seconds, self._time = now - self._time, now
        if self.watts is not None:
            self._joules += self.watts * seconds
        elif 'NVML' in self.source:
            milliwatts = sum(
                torch.cuda.power_draw(i)
                for i in range(torch.cuda.device_count()))
            self._joules += milliwatts / 1000 * seconds
        elif 'codecarbon' in self.source:
            kwh = self._tracker.stop_task().energy_consumed
            self._tracker.start_task()
            self._joules += kwh * 3.6e6
        else:
            counters = _read_rapl()
            for path, microjoules in counters.items():
                before = self._counters.get(path, microjoules)
                limit = int((path.parent / 'max_energy_range_uj').read_text())
                self._joules += (microjoules - before) % limit / 1e6
            self._counters = counters
        return self._joules


def _read_rapl(folder: Path = POWERCAP) -> Dict[Path, int]:
    """The counters of the processor packages, in microjoules."""
    counters = {}
    for path in sorted(folder.glob('intel-rapl:?/energy_uj')):
        try:
            counters[path] = int(path.read_text())
        except (OSError, ValueError):
            return {}
    return counters
