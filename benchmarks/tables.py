"""Write the tables of README and documentation from the summaries in ``benchmarks/results``.

A table is between two lines, ``<!-- table: NAME -->`` and ``<!-- end -->``, and is replaced. With
``--check`` nothing is written, and the exit status is 0 if all tables are current::

    python benchmarks/tables.py
"""

import argparse
import re
import sys
from pathlib import Path

from summary import RESULTS, read_summary

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FIGURE = ROOT / "docs" / "images" / "extraction.png"
BLOCK = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FILES, LARGE = "JPEG 500 x 375", "JPEG 12 Mpx"


def markdown(columns, rows, *, numbers_from=1):
    """Return a table; columns from `numbers_from` on are aligned to the right."""
    ruler = ["---" if i < numbers_from else "---:" for i in range(len(columns))]
    lines = [columns, ruler, *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def origin(summary, words=""):
    """Return the source of a table: command and machine."""
    return f"`{summary['command']}` ({summary['machine']}{words})\n\n"


def load(name):
    return read_summary(RESULTS / f"{name}.json")


def extraction(source, *, ways=None):
    """Images per second, and times the plain loop."""
    summary = load("extraction")
    backbones = summary["columns"][2:]
    rows = [
        [row["way"], *(_rate(row[backbone]) for backbone in backbones)]
        for row in summary["rows"]
        if row["source"] == source and (ways is None or row["way"] in ways)
    ]
    words = f", {summary['rounds']} rounds"
    return origin(summary, words) + markdown(["", *backbones], rows)


def _rate(cell):
    return "" if cell is None else "{:.1f} ({:.1f}; {:.1f} to {:.1f})".format(*cell[:4])


def costs():
    """Seconds to the first row, memory, and agreement with the plain loop."""
    summary = load("extraction")
    backbones = summary["columns"][2:]
    rows = [
        [row["way"], *(_cost(row[backbone]) for backbone in backbones)]
        for row in summary["rows"]
        if row["source"] == FILES
    ]
    return markdown(["", *backbones], rows)


def _cost(cell):
    if cell is None:
        return ""
    seconds, mib, cosine, difference = cell[4:]
    same = "" if cosine is None else f", {max(0, cosine):.0e}, {difference:.0e}"
    return f"{seconds:.1f} s, {mib:,.0f} MiB{same}"


def ablation():
    """Shares of the engine's rate, a column for each network and type."""
    summary = load("engine_ablation")
    return origin(summary, f", {summary['rounds']} rounds") + _shares(summary)


def _shares(summary):
    cells, columns = {}, {}
    for row in summary["rows"]:
        column = f"{row['backbone']} {row['precision']}"
        columns[column] = None
        cells.setdefault(row["way"], {})[column] = "{:.2f}; {:.2f} to {:.2f}".format(*row["share"])
    rows = [[way, *(found.get(c, "") for c in columns)] for way, found in cells.items()]
    return markdown(["", *columns], rows)


def all_layers():
    """Time of all layers over that of the last one, a column for each network and type."""
    summary = load("all_layers")
    return origin(summary, f", {summary['rounds']} rounds") + _shares(summary)


def kept_memory():
    """Rate of the engine where glibc keeps freed memory, over that where it does not."""
    summary = load("kept_memory")
    columns = [f"{row['backbone']} {row['precision']}" for row in summary["rows"]]
    rates = ["{:.2f}; {:.2f} to {:.2f}".format(*row["rate"]) for row in summary["rows"]]
    words = f", {summary['rounds']} rounds"
    return origin(summary, words) + markdown(columns, [rates], numbers_from=0)


def warm_extraction():
    """Share of the store in a cold run, and the rate of a warm one."""
    summary = load("warm_extraction")
    rows = [
        [
            f"{row['image_size']} px",
            "{:.2f} ({:.2f} to {:.2f})".format(*row["cold_over_no_store"]),
            "{:,.0f} ({:,.0f} to {:,.0f})".format(*row["warm_rows_per_second"]),
        ]
        for row in summary["rows"]
    ]
    columns = ["", "time of a cold run with a store, over one without", "rows per second, warm"]
    return origin(summary, f", {summary['rounds']} rounds") + markdown(columns, rows)


def footprint():
    """Seconds of imports and of the first row, and memory."""
    summary = load("footprint")
    rows = [
        [row["what"], "{median:.3g} ({min:.3g} to {max:.3g})".format(**row)]
        for row in summary["rows"]
    ]
    words = f", {summary['files']:,} files, {summary['rounds']} rounds"
    return origin(summary, words) + markdown(["", "median (extremes)"], rows)


def depth_search():
    """Seconds of a search over depths, and of plain skorch."""
    summary = load("depth_search")
    by_depth = {}
    for row in summary["rows"]:
        by_depth.setdefault(row["depth"], {})[row["who"]] = row["seconds"]
    whole = {who: sum(found[who] for found in by_depth.values()) for who in by_depth["head"]}
    rows = []
    for depth, found in [*by_depth.items(), ("all four depths", whole)]:
        plain = found["plain skorch"]
        own = [f"{found[p]:.1f} ({plain / found[p]:.1f})" for p in ("float32", "bfloat16")]
        rows.append([depth, f"{plain:.1f}", *own])
    columns = ["trained with the head", "plain skorch, s", "float32, s (ratio)"]
    columns += ["bfloat16, s (ratio)"]
    words = ", {images} images, {epochs} epochs, {folds} folds, {size} px".format(**summary)
    return origin(summary, words) + markdown(columns, rows)


def many_classes():
    """Seconds and accuracy of the probe of many classes, and of scikit-learn's search."""
    summary = load("many_classes")
    rows = [
        [
            row["way"],
            "{:.0f} ({:.0f} to {:.0f})".format(*row["seconds"]),
            "{:.2f} ({:.2f} to {:.2f})".format(*row["times_ours"]),
            f"{row['accuracy']:.3f}",
        ]
        for row in summary["rows"]
    ]
    columns = ["", "seconds", "times this package's", "accuracy"]
    words = f", {summary['classes']} classes, {summary['rounds']} rounds"
    return origin(summary, words) + markdown(columns, rows)


def head_layers():
    """Accuracy of both probes, of each depth, and of the best recipe of the other study."""
    summary, other = load("head_layers"), {}
    for row in load("finetune_study")["rows"]:
        other.setdefault(_place(row), []).extend(row[d] for d in row if d.startswith("depth"))
    rows = [
        [
            *_place(row),
            _mean_and_error(other[_place(row)][0]),
            *_depths(row),
            _mean_and_error(max(cell for cell in other[_place(row)] if cell)),
        ]
        for row in summary["rows"]
        if row["part"] == "heads"
    ]
    columns = ["images", "backbone", "n", "probe, last layer", "rate", "probe, all layers"]
    columns += ["depth 1", "depth 2", "depth 4", "best of the other study"]
    return origin(summary) + markdown(columns, rows, numbers_from=2)


def head_rates():
    """Accuracy by the learning rate of the stages."""
    summary = load("head_layers")
    rows = [[*_place(row), *_depths(row)] for row in summary["rows"] if row["part"] == "rates"]
    columns = ["images", "backbone", "n", "rate", "probe, all layers"]
    columns += ["depth 1", "depth 2", "depth 4"]
    return origin(summary) + markdown(columns, rows, numbers_from=2)


def _depths(row):
    ratio = "" if row["ratio"] is None else row["ratio"]
    return [ratio, *(_mean_and_error(row[f"depth {d}"]) for d in (0, 1, 2, 4))]


def _place(row):
    return row["data"], row["backbone"], row["n_images"]


def _mean_and_error(cell):
    """Write mean and standard error; the number of seeds if it is not three."""
    if cell is None:
        return ""
    mean, error, n_seeds = (*cell, 3)[:3]
    spread = "" if error is None else f" ± {error:.1f}"
    return f"{mean:.1f}{spread}" + (f" ({n_seeds})" if n_seeds != 3 else "")


def finetune_study():
    """Accuracy by depth, heads that read the last layer and plain skorch."""
    summary = load("finetune_study")
    depths = summary["columns"][4:]
    rows = [
        [
            *(row[name] for name in ("data", "backbone", "n_images", "recipe")),
            *("" if row[d] is None else "{:.1f} ± {:.1f}".format(*row[d]) for d in depths),
        ]
        for row in summary["rows"]
    ]
    columns = ["images", "backbone", "n", "recipe", *depths]
    return origin(summary, f", {summary['seeds']} seeds") + markdown(columns, rows, numbers_from=2)


def poolings():
    """Accuracy of the linear probe on all layers, by pooling."""
    found = {}
    for row in load("poolings")["rows"]:
        mean, error, _ = row["accuracy"]
        place = row["data"], f"{row['n_images']:,}"
        found.setdefault(place, {})[row["pooling"]] = f"{mean} ± {error}"
    rows = [[*place, *cells.values()] for place, cells in found.items()]
    columns = ["images", "n", *next(iter(found.values()))]
    return origin(load("poolings"), ", 3 seeds") + markdown(columns, rows)


def heat_maps():
    """Shares of images whose map lies on the object, by layer and head."""
    summary = load("heat_maps")
    rows = [
        [row["layer"], row["head"], *(_percent(row[c]) for c in ("accuracy", "pointing")),
         "" if row["shuffled"] is None else f"{row['shuffled']:.2f}", _percent(row["deletion"])]
        for row in summary["rows"]
    ]  # fmt: skip
    rows += [["", f"control: {c}", "", _percent(summary[c]), "", ""] for c in ("center", "random")]
    columns = ["layer", "head", "accuracy, %", "on the object, %", "shuffled labels, correlation"]
    columns += ["deleted faster, %"]
    words = f", {summary['images']} images"
    return origin(summary, words) + markdown(columns, rows, numbers_from=2)


def label_issues():
    """Shares of wrong labels that are found, by data set."""
    summary = load("label_issues")
    rows = [
        [row["data"], *(_range(row[c]) for c in ("accuracy", "first", "reported")),
         "{:.0f} ({:.0f} to {:.0f})".format(*row["n_reported"]), _range(row["suggested"])]
        for row in summary["rows"]
    ]  # fmt: skip
    columns = ["images", "accuracy, %", "among the first 5 %, %", "reported, %", "rows reported"]
    columns += ["true class suggested, %"]
    words = f", {summary['images']:,} images, {summary['seeds']} seeds"
    return origin(summary, words) + markdown(columns, rows)


def _percent(share):
    return "" if share is None else f"{100 * share:.1f}"


def _range(shares):
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * share for share in shares))


def cut_sweep():
    """Count the networks of each library that are cut."""
    summary = load("cut_sweep")
    rows = [[f"{value:,}" if i else value for i, value in enumerate(row.values())]
            for row in summary["rows"]]  # fmt: skip
    columns = ["", "networks", "cut, difference 0 everywhere", "too large, cut with equal shapes"]
    columns += ["not cut", "cut, one stage only"]
    return origin(summary) + markdown(columns, rows)


TABLES = {
    "extraction": lambda: extraction(FILES),
    "extraction large": lambda: extraction(LARGE),
    "extraction arrays": lambda: extraction("arrays"),
    "extraction short": lambda: extraction(
        FILES,
        ways=["plain torchvision loop", "embetter", "OpenVINO f32", "OpenVINO bf16",
              "sklearn_featx", "sklearn_featx bfloat16"],
    ),
    "extraction costs": costs,
    "engine ablation": ablation,
    "all layers": all_layers,
    "kept memory": kept_memory,
    "warm extraction": warm_extraction,
    "footprint": footprint,
    "depth search": depth_search,
    "many classes": many_classes,
    "finetune study": finetune_study,
    "head layers": head_layers,
    "head rates": head_rates,
    "cut sweep": cut_sweep,
    "poolings": poolings,
    "heat maps": heat_maps,
    "label issues": label_issues,
}  # fmt: skip


def updated(text):
    """Return a page with current tables."""
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def draw(path):
    """Draw the rate of each library relative to the plain loop, from JPEG files."""
    from matplotlib.figure import Figure

    summary = load("extraction")
    rows = [row for row in summary["rows"] if row["source"] == FILES][::-1]
    backbones = summary["columns"][2:]
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(1, len(backbones), sharey=True)
    for ax, backbone in zip(axes, backbones, strict=True):
        for position, row in enumerate(rows):
            if row[backbone] is not None:
                _, ratio, low, high = row[backbone][:4]
                color = "tab:blue" if "sklearn_featx" in row["way"] else "0.6"
                ax.barh(position, ratio, color=color, xerr=[[ratio - low], [high - ratio]])
        ax.set_title(backbone, fontsize=10)
        ax.set_xlabel("times the plain loop")
        ax.set_yticks(range(len(rows)), [row["way"] for row in rows], fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    settings = parser.parse_args(argv)
    stale = []
    for page in PAGES:
        text = page.read_text("utf-8")
        if (new := updated(text)) != text:
            stale.append(page)
            if not settings.check:
                page.write_text(new, "utf-8")
    print(*(page.relative_to(ROOT) for page in stale), sep="\n")
    if settings.check:
        sys.exit(bool(stale))
    draw(FIGURE)


if __name__ == "__main__":
    main()
