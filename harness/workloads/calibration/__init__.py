"""Calibration as a library (``metrics``, ``smooth``, ``scaling``, ``selective``, ``paired``) and as a workload."""

from harness.workloads.calibration.workload import CalibrationWorkload

WORKLOAD = CalibrationWorkload()
