"""``python -m skad``: the same as ``skad``."""

import sys

from skad.cli import main

if __name__ == "__main__":
    sys.exit(main())
