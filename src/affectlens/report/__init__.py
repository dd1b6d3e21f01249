"""Reads the result files of a finished run and renders them as one page; never imports torch.

`build_report(run)` writes `run/report.html` and `run/figures/`; `findings(run)` gives the main
findings as sentences.
"""

from .build import build_report as build_report
from .findings import findings as findings
