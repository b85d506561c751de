"""``python -m msmae``."""

from msmae.cli import main

main()
