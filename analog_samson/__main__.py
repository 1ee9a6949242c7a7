"""``python -m analog_samson``: the command ``analog-samson``."""

from analog_samson.console import main

main()
