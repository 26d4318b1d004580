"""How well the order of answers by length is predicted: ``python -m benchmarks.length --train FILE --model NAME``.

Kendall's tau-b between the predicted and the real length of the model's answers, on ``--test`` or on the fifth of the
prompts of ``--train`` that is not learnt from; beside it the length of the prompt, and the same learner without the
group of each question (``group_out_tau``).
"""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import LLMProxyError
from llm_proxy.route.metrics import kendall_tau
from llm_proxy.route.train.baselines import length_scores

from ._heads import call_times, group_out, trained
from ._outcomes import OPTIONS, entry_of, finite, known_lengths, sides
from ._report import arguments, report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.route.train.evaluate import Encoded


def main() -> None:
    """Run and report."""
    options = arguments("length", __doc__, **OPTIONS, model=(str, "", "the model whose answers are meant"))
    try:
        figures = finite(_measure(options))
        report("length", figures, options, table=_table(figures), entry=entry_of(options, options.model))
    except LLMProxyError as exc:
        sys.exit(str(exc))


def _measure(options: Namespace) -> dict[str, Any]:
    if not options.model:
        sys.exit("name a model: --model NAME")
    train, test = (known_lengths(side, options.model) for side in sides(options, lengths_only=True))
    if len(train.outcomes) < 2 or len(test.outcomes) < 2:
        sys.exit(f"there are no two lengths of answers of {options.model} on either side")
    real = test.outcomes.of(options.model).tokens[:, 0]
    _, lengths = train.fit([options.model]).predict(test.inputs)
    times = call_times(trained(train, options.model), test)
    return {
        "model": options.model,
        "n_train": len(train.outcomes),
        "n_test": len(test.outcomes),
        "kendall_tau": kendall_tau(lengths[:, 0], real),
        "length_of_prompt_tau": kendall_tau(length_scores(test.outcomes.prompts), real),
        **_group_out(train, test, options.model, real),
        "predict_us_p50": times["p50"],
        "predict_us_p99": times["p99"],
        "sha256_train": train.outcomes.sha256,
        "sha256_test": test.outcomes.sha256,
    }


def _group_out(train: Encoded, test: Encoded, model: str, real: NDArray[np.float32]) -> dict[str, Any]:
    found = group_out(train, test, [model])
    tau = None if found is None else kendall_tau(found[1][:, 0], real)
    return {"group_out_tau": tau, "groups": len(set(test.outcomes.groups))}


def _table(found: dict[str, Any]) -> list[list[str]]:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    return [
        [found["model"], f"{found['n_train']} to learn from, {found['n_test']} to measure on"],
        ["Kendall tau of the length", shown(found["kendall_tau"])],
        ["  group of the question not seen", shown(found["group_out_tau"])],
        ["  prompt length", shown(found["length_of_prompt_tau"])],
        ["time, us (p50)", f"{found['predict_us_p50']:.0f}"],
    ]


if __name__ == "__main__":
    main()
