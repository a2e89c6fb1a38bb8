"""The command line as a module: ``python -m sklearn_featx``."""

import sys

from .cli._main import main

if __name__ == "__main__":
    sys.exit(main())
