"""FER2013 from Kaggle."""

from __future__ import annotations

from pathlib import Path

from ferbench.errors import InputError

KAGGLE_NAME = "msambare/fer2013"
_BY_HAND = (
    f"by hand: get {KAGGLE_NAME} (folders) or the competition's fer2013.csv from Kaggle in a browser, "
    "then `ferbench data add PATH`"
)


def download() -> Path:
    """The folder of the downloaded image-folder edition.

    Raises:
        InputError: kagglehub is not installed, or Kaggle cannot be reached or refuses.
    """
    try:
        import kagglehub
    except ImportError:
        raise InputError(f"kagglehub is not installed (pip install 'ferbench[kaggle]'); {_BY_HAND}") from None
    try:
        return Path(kagglehub.dataset_download(KAGGLE_NAME))
    except Exception as error:
        # kagglehub passes on whatever its http library raises
        cause = " ".join(str(error).split())[:150]
        raise InputError(f"Kaggle gave nothing ({type(error).__name__}: {cause}); {_BY_HAND}") from None
