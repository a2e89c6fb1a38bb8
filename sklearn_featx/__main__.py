"""``python -m sklearn_featx``: the command line without its installed script."""

import sys

from .cli._main import main

if __name__ == "__main__":
    sys.exit(main())
