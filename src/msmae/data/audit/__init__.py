"""The audit of a data set: unreadable, duplicate, leaking, contradictory, or recognisable by something but the tissue.

``take_fingerprints`` decodes every file once; ``find_duplicates`` compares what it kept; ``audit`` counts;
``stop_on_leakage`` refuses a test split that is none; ``keep_together`` names the groups a new split may not part.
"""

from msmae.data.audit.duplicates import Duplicates, find_duplicates, keep_together
from msmae.data.audit.findings import Audit, audit
from msmae.data.audit.fingerprints import Fingerprints, take_fingerprints
from msmae.data.audit.sheet import draw_worst_pairs
from msmae.data.audit.verdict import describe_leakage, list_warnings, mending_command, stop_on_leakage

__all__ = [
    "Audit",
    "Duplicates",
    "Fingerprints",
    "audit",
    "describe_leakage",
    "draw_worst_pairs",
    "find_duplicates",
    "keep_together",
    "list_warnings",
    "mending_command",
    "stop_on_leakage",
    "take_fingerprints",
]
