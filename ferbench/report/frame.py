"""The leaderboard as one flat table of unformatted values, for pandas and leaderboard.csv."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ferbench.evaluation.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd

    from ferbench.report.entries import Entry, Spread
    from ferbench.report.evidence import Evidence
    from ferbench.report.leaderboard import Leaderboard, Track

DECIMALS = 6
_OF_PROBABILITIES = ("nll", "brier", "ece")
_WHOLE = ("rank", "rank_low", "rank_high", "n_seeds", "epochs", "n_test", "n_clean", "parameters", "macs")


def frame(board: Leaderboard) -> pd.DataFrame:
    """One row per entry; a column whose name ends in `_sd` is empty for a single seed.

    `_low` and `_high` are limits of 95 % intervals of test scores and ranks; entries of a track that share a letter of
    `group` cannot be told apart; `clean_` scores are on the `n_clean` test images without a twin in train or val.
    Protocol oracle chose on test: its scores are too good. `entry` is its name within the track, as `ferbench compare`
    takes it.
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
        "rank": entry.rank or None,
        "entry": entry.slug,
        "model": entry.model,
        "strategy": entry.strategy,
        "init": entry.init,
        "n_seeds": len(entry.seeds),
        "seeds": _words(entry.seeds),
        **_scores("test", entry.test),
        **_evidence(entry.evidence),
        **(_scores("clean", entry.clean) or {f"clean_{m}{end}": None for m in entry.test for end in ("", "_sd")}),
        **_scores("val", entry.val),
        "parameters": entry.parameters,
        "macs": entry.macs,
        "train_seconds": entry.train_seconds,
        "train_images_per_second": entry.train_images_per_second,
        **{f"inference_images_per_second_b{size}": rate for size, rate in entry.inference.items()},
        "device": entry.device,
        "device_type": entry.device_type,
        "precision": "; ".join(sorted(set(entry.precisions) - {""})) or None,
        "best_epochs": _words(entry.best_epochs),
        "n_test": track.n_test,
        "n_clean": entry.n_clean,
        "data_fingerprint": track.data.fingerprint,
        "recipe": entry.recipe,
        "runs": _words(entry.runs),
        **{
            f"test_{score}_{name}": getattr(means, score)
            for score in ("f1", "recall", "precision")
            for name, means in entry.per_class.items()
        },
    }


def _evidence(evidence: Evidence | None) -> dict[str, Any]:
    if evidence is None:
        ends = [f"test_{m}_{end}" for m in METRICS.names for end in ("low", "high")]
        return dict.fromkeys(
            [*ends, "rank_low", "rank_high", "group", "temperature", *map("calibrated_{}".format, _OF_PROBABILITIES)]
        )
    limits = {
        f"test_{metric}_{end}": limit
        for metric, interval in evidence.intervals.items()
        for end, limit in interval._asdict().items()
    }
    ranks = dict(zip(("rank_low", "rank_high"), evidence.ranks, strict=True))
    calibration = evidence.calibration
    calibrated = {f"calibrated_{m}": calibration.after[m] for m in _OF_PROBABILITIES}
    return {**limits, **ranks, "group": evidence.group, "temperature": calibration.temperature, **calibrated}


def _scores(split: str, spreads: dict[str, Spread]) -> dict[str, float | None]:
    pairs = [(f"{split}_{m}", s) for m, s in spreads.items()]
    return {name: value for n, s in pairs for name, value in ((n, s.mean), (f"{n}_sd", s.sd))}


def _words(values: tuple[Any, ...]) -> str:
    return " ".join("-" if v is None else str(v) for v in values)
