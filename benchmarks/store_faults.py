"""Faults that a store must survive, each with its figure.

Run all of them in full, some minutes, or some of them in part::

    python benchmarks/store_faults.py
    python benchmarks/store_faults.py flipped_bits=100 killed_writers=20

Each fault is a function of a folder and a number that returns counts. `wrong` counts rows that
differ from the truth, `raised` exceptions, and `unrepaired` rows that are still missing after all
rows were written again. The tests run the same functions with smaller numbers.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np

from sklearn_featx.store import FeatureStore
from sklearn_featx.store import _database as database_module

KEYS = [f"image {i}" for i in range(40)]
# Large enough that no row is evicted: a missing row is then one that a fault has damaged.
NO_EVICTION = "4GiB"
LENGTHS = {"small": 300, "large": 30_000}  # the large rows fill pages of their own


def truth(recipe, key):
    """Return the right row of a key."""
    rng = np.random.default_rng(zlib.crc32(f"{recipe} {key}".encode()))
    return rng.normal(size=LENGTHS[recipe.split()[0]]).astype(np.float32)


def use(store, recipe="small", keys=KEYS):
    """Read rows, compute and write the missing ones, and count both, as the flow does."""
    rows = store.rows(recipe)
    found, values = rows.get_many(keys)
    expected = [truth(recipe, key) for key in keys]
    wrong = sum(
        not np.array_equal(value, expected[i])
        for i, value in zip(np.flatnonzero(found), values, strict=True)
    )
    missing = [int(i) for i in np.flatnonzero(~found)]
    if missing:
        rows.put_many([keys[i] for i in missing], np.stack([expected[i] for i in missing]))
    return wrong, len(missing)


def use_all(store):
    """Both recipes and the memo of files."""
    results = [use(store, recipe) for recipe in LENGTHS]
    files = [(f"/images/{i}.png", 1000, 1, 1, i) for i in range(20)]
    digests = store.file_digests(files)
    wrong = sum(d is not None and d != f"digest {i}" for i, d in enumerate(digests))
    store.remember_files(files, [f"digest {i}" for i in range(20)])
    return wrong + sum(w for w, _ in results), sum(c for _, c in results)


def fill(folder):
    """Copy the files of an open store, with its log and the index of the log."""
    shutil.rmtree(folder, ignore_errors=True)
    store = FeatureStore(folder, "64MiB")
    use_all(store)
    picture = folder.with_name("picture")
    shutil.rmtree(picture, ignore_errors=True)
    shutil.copytree(folder, picture)
    store.close()
    return picture


def damaged_many_times(folder, n, damage):
    """Damage a store n times, every other time while it is open; use it after each."""
    picture = fill(folder)
    counts = dict.fromkeys(("trials", "wrong", "raised", "unrepaired", "warned"), 0)
    rng = Random(0)  # noqa: S311 - faults, not secrets
    for trial in range(n):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(picture, folder)
        store = FeatureStore(folder, "64MiB")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            forget_failures(store)
            try:
                if trial % 2:
                    use_all(store)
                damage(folder, rng)
                # Damage may be found only after a part was read, which is then lost too.
                counts["wrong"] += use_all(store)[0] + use_all(store)[0]
                wrong, computed = use_all(store)
                counts["wrong"] += wrong
                counts["unrepaired"] += computed
            except Exception:
                traceback.print_exc()
                counts["raised"] += 1
            store.close()
        counts["trials"] += 1
        counts["warned"] += len(caught)
    return counts


def forget_failures(store):
    """Forget the tally of a store, as a new process has none."""
    database_module._TALLIES.pop(Path(store.path), None)


def pick_file(folder, rng):
    """Any file of the store that is not empty."""
    return rng.choice([path for path in sorted(folder.iterdir()) if path.stat().st_size])


def flip_bit(folder, rng):
    with pick_file(folder, rng).open("r+b") as file:
        position = rng.randrange(os.fstat(file.fileno()).st_size)
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ (1 << rng.randrange(8))]))


def truncate(folder, rng):
    path = pick_file(folder, rng)
    os.truncate(path, rng.choice([0, rng.randrange(path.stat().st_size)]))


def delete(folder, rng):
    if rng.random() < 0.2:
        shutil.rmtree(folder)
    else:
        pick_file(folder, rng).unlink()


def replace(folder, rng):
    path = pick_file(folder, rng)
    content = rng.choice([rng.randbytes(100_000), pick_file(folder, rng).read_bytes(), b"text\n"])
    other = folder / "other"
    other.write_bytes(content)
    other.replace(path)


def flipped_bits(folder, n=1000):
    """Single flipped bits over every file of the store."""
    return damaged_many_times(folder, n, flip_bit)


def cut_deleted_replaced(folder, n=500):
    """Truncate, delete and replace files."""
    return damaged_many_times(
        folder, n, lambda *where: where[1].choice([truncate, delete, replace])(*where)
    )


def killed_writers(folder, n=200):
    """Writers killed in the middle (SIGKILL); every row is read after each."""
    counts = {"kills": 0, "wrong": 0, "unreadable": 0, "rows": 0}
    rng = Random(0)  # noqa: S311 - faults, not secrets
    store = FeatureStore(folder, NO_EVICTION)
    for kill in range(n):
        child = start(write_for_ever, folder, kill)
        time.sleep(rng.uniform(0.005, 0.04))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        wrong, computed = use(store, "small", KEYS)
        counts["kills"] += 1
        counts["wrong"] += wrong
        counts["unreadable"] += computed if kill else 0
    counts["rows"] = store.info().n_rows
    counts["removed by verify"] = store.verify().n_removed
    counts["claims left"] = count_claims(store)
    store.close()
    counts["orphans"] = len([p for p in folder.iterdir() if p.suffix not in (".sqlite", ".lock")])
    return counts


def write_for_ever(folder, seed):
    store = FeatureStore(folder, NO_EVICTION)
    for step in range(10**6):
        recipe = f"{Random(step).choice(list(LENGTHS))} {seed} {step}"  # noqa: S311 - faults, not secrets
        rows = store.rows(recipe)
        rows.claim(KEYS[:8])
        rows.put_many(KEYS[:8], np.stack([truth(recipe, key) for key in KEYS[:8]]))


def count_claims(store):
    """Claims in the database, after somebody else's next claim."""
    rows = store.rows("small")
    rows.claim(["a new key"])
    rows.release(["a new key"])
    store.close()
    connection = sqlite3.connect(next(Path(store.path).glob("*.sqlite")))
    with contextlib.closing(connection):
        return connection.execute("SELECT count(*) FROM claims").fetchone()[0]


def shared_keys(folder, n=8):
    """Run processes that request the same 200 new keys at the same time."""
    keys = [f"shared {i}" for i in range(200)]
    results = get_context("fork").SimpleQueue()
    barrier = get_context("fork").Barrier(n)
    workers = [start(share, folder, keys, barrier, results) for _ in range(n)]
    outcomes = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return {
        "processes": n,
        "keys": len(keys),
        "computed": sum(computed for computed, _ in outcomes),
        "wrong": sum(wrong for _, wrong in outcomes),
    }


def share(folder, keys, barrier, results):
    rows = FeatureStore(folder, "64MiB").rows("small shared")
    computed = 0
    barrier.wait()
    for start in range(0, len(keys), 16):
        some = keys[start : start + 16]
        todo = [some[i] for i in rows.claim(some)]
        time.sleep(0.002 * len(todo))
        if todo:
            rows.put_many(*compute("small shared", todo))
        computed += len(todo)
    left = [keys[i] for i in rows.wait(keys, timeout=30)]
    if left:
        rows.put_many(*compute("small shared", left))
    found, values = rows.get_many(keys)
    right = np.stack([truth("small shared", key) for key in keys])
    wrong = len(keys) - int((values == right).all(axis=1).sum()) if found.all() else len(keys)
    results.put((computed + len(left), wrong))


def compute(recipe, keys):
    return keys, np.stack([truth(recipe, key) for key in keys])


def dead_holders(folder, n=5):
    """Kill processes with claims while another waits; return the longest delay in seconds."""
    rows = FeatureStore(folder, "64MiB").rows("small")
    longest = 0.0
    for trial in range(n):
        keys = [f"{trial} {key}" for key in KEYS]
        ready = get_context("fork").Event()
        child = start(claim_and_sleep, folder, keys, ready)
        ready.wait()
        assert not rows.claim(keys), "the holder lives, and holds"
        os.kill(child.pid, signal.SIGKILL)
        killed = time.perf_counter()
        assert rows.wait(keys, timeout=60) == list(range(len(keys)))
        assert rows.claim(keys) == list(range(len(keys)))
        longest = max(longest, time.perf_counter() - killed)
        child.join()
    return {"kills": n, "longest delay": round(longest, 3)}


def claim_and_sleep(folder, keys, ready):
    FeatureStore(folder, "64MiB").rows("small").claim(keys)
    ready.set()
    time.sleep(600)


def evicting(folder, n=60):
    """Four writers, four readers and a pruner for n seconds in a store that is too small."""
    limit = 32 * 2**20
    results = get_context("fork").SimpleQueue()
    until = time.time() + n
    jobs = [*[write_until] * 4, *[read_until] * 4, prune_until]
    workers = [start(guarded, job, folder, until, i, results) for i, job in enumerate(jobs)]
    largest = 0
    while time.time() < until:
        largest = max(largest, size_of(folder))
        time.sleep(0.01)
    outcomes = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    totals = {key: sum(o.get(key, 0) for o in outcomes) for key in ("raised", "wrong", "warned")}
    work = {key: sum(o.get(key, 0) for o in outcomes) for key in ("written", "read", "pruned")}
    largest = max(largest, size_of(folder))
    return {"seconds": n, **totals, **work, "largest": largest, "limit": limit}


def guarded(job, folder, until, seed, results):
    outcome = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            outcome = job(FeatureStore(folder, "32MiB"), until, Random(seed))  # noqa: S311 - faults, not secrets
        except Exception:
            traceback.print_exc()
            outcome = {"raised": 1}
    results.put({**outcome, "warned": len(caught)})


def random_batch(rng):
    recipe = rng.choice(list(LENGTHS))
    return recipe, [f"key {rng.randrange(2000)}" for _ in range(16)]


def write_until(store, until, rng):
    written = 0
    while time.time() < until:
        recipe, keys = random_batch(rng)
        store.rows(recipe).put_many(*compute(recipe, keys))
        written += len(keys)
    return {"written": written}


def read_until(store, until, rng):
    read = wrong = 0
    while time.time() < until:
        recipe, keys = random_batch(rng)
        found, values = store.rows(recipe).get_many(keys)
        right = (truth(recipe, keys[i]) for i in np.flatnonzero(found))
        wrong += sum(not np.array_equal(*pair) for pair in zip(values, right, strict=True))
        read += int(found.sum())
    return {"read": read, "wrong": wrong}


def prune_until(store, until, rng):
    pruned = 0
    while time.time() < until:
        pruned += store.prune("20MiB")
        time.sleep(rng.uniform(0.1, 1.0))
    return {"pruned": pruned}


def size_of(folder):
    total = 0
    for path in list(folder.iterdir()) if folder.exists() else []:
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def full_disk(folder, n=20):
    """Limit the file size, as a full disk does, at a different point in each run."""
    return in_children(n, lambda trial: write_to_full_disk(folder / str(trial), trial))


def write_to_full_disk(folder, trial):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (trial * 150_000, resource.RLIM_INFINITY))
    return use_thrice(FeatureStore(folder, "64MiB"))


def unusable_paths(folder, n=4):
    """Use paths that are a file, are below a file, cannot be made, or vanish in mid-run."""
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text("mine")
    paths = [folder / "file", folder / "file" / "below", Path("/proc/store"), folder / "vanishes"]
    counts = in_children(n, lambda trial: use_thrice(FeatureStore(paths[trial]), paths[trial]))
    left = {path.name for path in folder.iterdir()} - {"file", "vanishes"}
    return {**counts, "left behind": len(left), "file": (folder / "file").read_text()}


def use_thrice(store, vanishing=None):
    """Use a store repeatedly; count wrong rows and warnings."""
    wrong = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            wrong += use_all(store)[0]
            if vanishing is not None and vanishing.name == "vanishes":
                shutil.rmtree(vanishing)
    return {"wrong": wrong, "warned": len(caught)}


def in_children(n, job):
    """Run a job in n processes, one after the other."""
    counts = {"trials": n, "raised": 0, "wrong": 0, "most warnings": 0}
    for trial in range(n):
        results = get_context("fork").SimpleQueue()
        child = start(report, job, trial, results)
        child.join()
        outcome = results.get() if not results.empty() else {"raised": 1}
        counts["raised"] += outcome.get("raised", 0)
        counts["wrong"] += outcome.get("wrong", 0)
        counts["most warnings"] = max(counts["most warnings"], outcome.get("warned", 0))
    return counts


def report(job, trial, results):
    try:
        results.put(job(trial))
    except Exception:
        traceback.print_exc()
        results.put({"raised": 1})


def start(function, *arguments):
    """Fork: quick, and every run checks that no connection crosses a fork."""
    process = get_context("fork").Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


FAULTS = {
    function.__name__: function
    for function in (
        flipped_bits,
        cut_deleted_replaced,
        killed_writers,
        shared_keys,
        dead_holders,
        evicting,
        full_disk,
        unusable_paths,
    )
}


def main(arguments):
    chosen = [argument.partition("=") for argument in arguments] or [
        (name, "", "") for name in FAULTS
    ]
    for name, _, number in chosen:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            counts = FAULTS[name](Path(folder) / "store", *([int(number)] if number else []))
        seconds = round(time.perf_counter() - began, 1)
        print(json.dumps({"fault": name, **counts, "took": seconds}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
