# Copyright (c) greenmim authors. All rights reserved.
"""What a run costs: time, memory and energy, measured and reported.

``run_meter_hook`` measures a run, by ``timing``, ``memory`` and ``energy``,
``run_report_hook`` writes the report of a run, whose page and figure
``report`` makes.
"""
from .energy import EnergyMeter
from .run_meter_hook import RunMeterHook
from .run_report_hook import RunReportHook

__all__ = ['EnergyMeter', 'RunMeterHook', 'RunReportHook']
