"""How many rows go through in one pass: fewer where memory ends, more again when it is free."""

from .._parallel import ForkSafeLock

# Passes that fit before twice as many rows are tried again, and after tries that failed.
_FIRST_PATIENCE = 16
_MOST_PATIENCE = 1024


class PassSize:
    """Largest number of rows in a pass, shared by the workers of an engine.

    A pass that does not fit halves it. Another process may have had the memory for a moment, so
    after some passes that fit, twice as many rows are tried again, until all fit as before.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        # None: as many as there are.
        self._most: int | None = None
        # Rows of the pass that failed first.
        self._failed = 0
        self._patience = _FIRST_PATIENCE
        self._n_fitting = 0
        self._tries_again = False

    def limit(self, n_rows: int) -> int:
        """Return how many of some rows to take in the next pass."""
        most = self._most
        return n_rows if most is None else min(n_rows, most)

    def fits(self, n_rows: int) -> None:
        """Count a pass that went through."""
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
                # Of two workers that failed together, the other one has halved it.
                return
            if self._most is None:
                self._failed = n_rows
            if self._tries_again:
                self._tries_again = False
                self._patience = min(2 * self._patience, _MOST_PATIENCE)
            self._most, self._n_fitting = max(1, n_rows // 2), 0
