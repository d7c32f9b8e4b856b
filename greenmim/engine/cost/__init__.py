# Copyright (c) greenmim authors. All rights reserved.
"""What a run costs: time, memory and energy, measured and reported.

``run_meter_hook`` measures a run, by ``timing``, ``memory`` and ``energy``;
``report`` writes its report, a page and a figure.
"""
from .energy import EnergyMeter
from .report import RunReportHook
from .run_meter_hook import RunMeterHook

__all__ = ['EnergyMeter', 'RunMeterHook', 'RunReportHook']
