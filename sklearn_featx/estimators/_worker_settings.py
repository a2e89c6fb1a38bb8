"""Estimators carry Pillow's settings and the session's store into worker processes, only there.

A search with ``n_jobs`` pickles its estimators for joblib's workers, which are new processes that
know nothing of ``LOAD_TRUNCATED_IMAGES``, of plugins or of the session's store. Saved files hold
none of these: loading a model must not change what a process accepts.
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
    """Mixin of estimators that take Pillow's settings with them to worker processes."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # multiprocessing has a table of its own for what it sends to processes that it spawns.
        ForkingPickler.register(cls, _reduce)
        if _register_with_joblib is not None:
            _register_with_joblib(cls, _reduce)


def _reduce(estimator: Any) -> tuple[Any, ...]:
    make, arguments, *state = estimator.__reduce_ex__(2)
    # The handle, when it arrives, makes the sender's session that of the worker.
    session = open_store(True) if getattr(estimator, "cache", False) is True else None
    return (_arrive, (pillow_settings(), session, make, arguments), *state)


def _arrive(
    settings: PillowSettings,
    session: FeatureStore | None,  # noqa: ARG001 # needed no more once it is unpickled
    make: Callable[..., Any],
    arguments: Any,
) -> Any:
    # What a worker sends back must not change the process that it works for.
    if multiprocessing.parent_process() is not None:
        apply_pillow_settings(settings)
    return make(*arguments)


class _Probe:
    arrived = False


def _reduce_probe(_: _Probe) -> tuple[Any, ...]:
    return getattr, (_Probe, "arrived")


def _find_register() -> Callable[[type, _Reduce], None] | None:
    """Return joblib's table of the same kind, which is private, if it does what is expected."""
    try:
        from joblib.externals.loky.backend.reduction import dumps, loads, register

        register(_Probe, _reduce_probe)
        works = loads(dumps(_Probe())) is False
    except Exception:
        return None
    return register if works else None


_register_with_joblib = _find_register()
