"""``python -m jaxmle``."""

import sys

from jaxmle.command.line import main

if __name__ == "__main__":
    sys.exit(main())
