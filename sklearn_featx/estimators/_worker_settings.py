"""Transfer of Pillow's settings and the session's store to worker processes.

A search with ``n_jobs`` pickles its estimators for joblib's worker processes, in which
``LOAD_TRUNCATED_IMAGES``, Pillow's plugins and the session's store are not set. Saved files contain
none of these, since loading a model must not change which files a process accepts.
"""

import multiprocessing
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

from ..flow import open_store
from ..images import PillowSettings, apply_pillow_settings, pillow_settings
from ..store import FeatureStore

_Reduce = Callable[[Any], tuple[Any, ...]]


class SentWithSettings:
    """Mixin of estimators that transfer Pillow's settings to worker processes."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # multiprocessing has its own table of reducers for processes that it spawns.
        ForkingPickler.register(cls, _reduce)
        if _register_with_joblib is not None:
            _register_with_joblib(cls, _reduce)


def _reduce(estimator: Any) -> tuple[Any, ...]:
    make, arguments, *state = estimator.__reduce_ex__(2)
    # Unpickling the handle makes the sender's session the session of the worker.
    session = open_store(True) if getattr(estimator, "cache", False) is True else None
    return (_arrive, (pillow_settings(), session, make, arguments), *state)


def _arrive(
    settings: PillowSettings,
    session: FeatureStore | None,  # noqa: ARG001 # unpickling it is enough
    make: Callable[..., Any],
    arguments: Any,
) -> Any:
    # An estimator that a worker returns must not change the settings of the main process.
    if multiprocessing.parent_process() is not None:
        apply_pillow_settings(settings)
    return make(*arguments)


class _Probe:
    arrived = False


def _reduce_probe(_: _Probe) -> tuple[Any, ...]:
    return getattr, (_Probe, "arrived")


def _find_register() -> Callable[[type, _Reduce], None] | None:
    """Return joblib's table of reducers, which is private, if a test of it succeeds."""
    try:
        from joblib.externals.loky.backend.reduction import dumps, loads, register

        register(_Probe, _reduce_probe)
        works = loads(dumps(_Probe())) is False
    except Exception:
        # A private interface may fail in any way; without it, workers use their own settings.
        return None
    return register if works else None


_register_with_joblib = _find_register()
