"""``python -m ipnctl``."""

from .cli import main

main(prog_name="ipnctl")
