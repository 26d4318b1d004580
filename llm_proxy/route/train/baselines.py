"""What a router must beat to be worth anything: the length of the prompt, its words, and chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import MissingDependencyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["length_scores", "word_scores"]

_MOST_CHARS = 20_000


def length_scores(prompts: Sequence[str]) -> NDArray[np.float64]:
    """Longer prompts need the stronger model.

    Returns:
        Shape ``(n,)``, float64: characters.
    """
    import numpy

    return numpy.array([len(prompt) for prompt in prompts], numpy.float64)


def word_scores(
    prompts: Sequence[str], gain: NDArray[np.float32], asked: Sequence[str], *, seed: int = 0
) -> NDArray[np.float64]:
    """TF-IDF of words and pairs of words, and a logistic regression on whether the strong model does better.

    Args:
        prompts: To learn from.
        gain: Shape ``(len(prompts),)``: what the strong model's score is above the weak one's.
        asked: To score.
        seed: Seed of the regression.

    Returns:
        Shape ``(len(asked),)``, float64, in [0, 1]; .5 where all gains fall on one side, and where no words are left to
        learn from: emoji, single letters, or sentences without spaces between words of which no two are alike.

    Raises:
        MissingDependencyError: scikit-learn is not installed.

    scikit-learn at its defaults, but for pairs of words, sublinear counts, and words that two prompts have at least.
    """
    import numpy

    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError as exc:
        raise MissingDependencyError(f'the TF-IDF baseline needs {exc.name}: pip install "llm-proxy[train]"') from exc
    is_better = gain > 0
    if is_better.all() or not is_better.any():
        return numpy.full(len(asked), 0.5)
    words: Any = TfidfVectorizer(ngram_range=(1, 2), min_df=2 if len(prompts) > 100 else 1, sublinear_tf=True)
    try:
        found = words.fit_transform([prompt[:_MOST_CHARS] for prompt in prompts])
    except ValueError:  # its word for an empty vocabulary
        return numpy.full(len(asked), 0.5)
    model: Any = LogisticRegression(max_iter=1000, random_state=seed).fit(found, is_better)
    scores: NDArray[np.float64] = model.predict_proba(words.transform([prompt[:_MOST_CHARS] for prompt in asked]))[:, 1]
    return scores
