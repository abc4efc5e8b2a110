"""The leaderboard as one flat table of unformatted values, for pandas and leaderboard.csv."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from ferbench.report.leaderboard import Entry, Leaderboard, Track

DECIMALS = 6
_WHOLE = ("rank", "n_seeds", "epochs", "n_test", "parameters", "macs")


def frame(board: Leaderboard) -> pd.DataFrame:
    """One row per entry; a column whose name ends in `_sd` is empty for a single seed.

    Scores are on the 0-1 scale, speeds in images/s, `macs` for one image. `seeds`, `best_epochs` and `runs` hold
    several values with spaces between them. Rows of different tracks (`track`) must not be compared.
    """
    import pandas as pd

    rows = [_row(track, entry) for track in board.tracks for entry in track.entries]
    columns = _in_order([list(r) for r in rows]) or ["track"]
    table = pd.DataFrame(rows, columns=columns)
    # a missing value would turn whole numbers into floats
    return table.astype({c: "Int64" for c in _WHOLE if c in table.columns})


def csv(board: Leaderboard) -> bytes:
    """The content of leaderboard.csv, the same on every machine."""
    text: str = frame(board).round(DECIMALS).to_csv(index=False, lineterminator="\n")
    return text.encode()


def _in_order(rows: list[list[str]]) -> list[str]:
    """All rows' columns; one that some rows lack stands behind the group it belongs to."""
    columns = dict.fromkeys(name for row in rows for name in row)
    groups = ("test_f1_", "test_recall_", "test_precision_", "inference_")
    place = {c: max((i for i, g in enumerate(groups) if c.startswith(g)), default=-1) for c in columns}
    head = [c for c in columns if place[c] < 0]
    speeds = sorted((c for c in columns if place[c] == 3), key=lambda c: int(c.rpartition("_b")[2]))
    at = head.index("device") if "device" in head else len(head)
    classes = sorted((c for c in columns if 0 <= place[c] < 3), key=lambda c: place[c])
    return [*head[:at], *speeds, *head[at:], *classes]


def _row(track: Track, entry: Entry) -> dict[str, Any]:
    return {
        "track": track.slug,
        "data": track.data.name,
        "protocol": track.data.protocol,
        "budget": track.budget.name,
        "fraction": track.budget.fraction,
        "epochs": entry.epochs,
        "rank": entry.rank,
        "model": entry.model,
        "strategy": entry.strategy,
        "init": entry.init,
        "n_seeds": len(entry.seeds),
        "seeds": _words(entry.seeds),
        **_scores("test", entry),
        **_scores("val", entry),
        "parameters": entry.parameters,
        "macs": entry.macs,
        "train_seconds": entry.train_seconds,
        "train_images_per_second": entry.train_images_per_second,
        **{f"inference_images_per_second_b{size}": rate for size, rate in entry.inference.items()},
        "device": entry.device,
        "device_type": entry.device_type,
        "best_epochs": _words(entry.best_epochs),
        "n_test": track.n_test,
        "data_fingerprint": track.data.fingerprint,
        "recipe": entry.recipe,
        "runs": _words(entry.runs),
        **{
            f"test_{score}_{name}": getattr(means, score)
            for score in ("f1", "recall", "precision")
            for name, means in entry.per_class.items()
        },
    }


def _scores(split: str, entry: Entry) -> dict[str, float | None]:
    spreads = entry.test if split == "test" else entry.val
    pairs = [(f"{split}_{m}", s) for m, s in spreads.items()]
    return {name: value for n, s in pairs for name, value in ((n, s.mean), (f"{n}_sd", s.sd))}


def _words(values: tuple[Any, ...]) -> str:
    return " ".join("-" if v is None else str(v) for v in values)
