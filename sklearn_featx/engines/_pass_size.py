"""The size of a pass: the number of rows adapts to the free memory."""

from .._parallel import ForkSafeLock

# Number of fitting passes before twice as many rows are tried: at first, and at most after
# failures.
_FIRST_PATIENCE = 16
_MOST_PATIENCE = 1024


class PassSize:
    """The maximum number of rows in a pass, shared by the workers of an engine.

    A pass that does not fit into memory halves the number. Another process may have used the memory
    temporarily, so after some fitting passes the number is doubled, until it is unlimited again.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        # None: unlimited.
        self._most: int | None = None
        # Number of rows of the first pass that failed.
        self._failed = 0
        self._patience = _FIRST_PATIENCE
        self._n_fitting = 0
        self._tries_again = False

    def limit(self, n_rows: int) -> int:
        """Return the number of rows of the next pass."""
        most = self._most
        return n_rows if most is None else min(n_rows, most)

    def fits(self, n_rows: int) -> None:
        """Count a pass that fitted into memory."""
        if self._most is None and not self._tries_again:
            return
        with self._lock:
            if n_rows < (self._most or self._failed):
                return
            if self._tries_again:
                self._tries_again, self._patience = False, _FIRST_PATIENCE
            self._n_fitting += 1
            if self._most is not None and self._n_fitting >= self._patience:
                self._n_fitting, self._tries_again = 0, True
                self._most *= 2
                if self._most >= self._failed:
                    self._most = None

    def does_not_fit(self, n_rows: int) -> None:
        """Halve the number of rows."""
        with self._lock:
            if self._most is not None and n_rows > self._most:
                # Another worker failed simultaneously and has already halved the number.
                return
            if self._most is None:
                self._failed = n_rows
            if self._tries_again:
                self._tries_again = False
                self._patience = min(2 * self._patience, _MOST_PATIENCE)
            self._most, self._n_fitting = max(1, n_rows // 2), 0
