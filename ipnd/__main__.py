"""``python -m ipnd``."""

from .cli import main

main(prog_name="ipnd")
