"""An ε too small for the small-cell test: refused with the least ε, or the largest threshold, that works."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest

from mpc_engine.dp.accounting import Guarantee, Part, Rule, guarantee_for
from mpc_engine.errors import DocumentError
from mpc_engine.protocols.threshold import LARGEST_RANGE
from mpc_engine.release.smallcells import check

ROOT = Path(__file__).resolve().parents[2]
COUNTS = [Part("cells")]
QUARTER = [Part("guard"), Part("members", 3, guard=False)]
SIXTH = [Part("guard"), Part("members", 5, guard=False)]
DELTA = Fraction(1, 10**6)


def promised(parts: list[Part], epsilon: str, k: int = 5, rule: Rule = Rule.NOISY, cap: int = 1) -> Guarantee:
    delta = DELTA if rule is Rule.STRICT else None
    return guarantee_for(Fraction(epsilon), parts, rule, k, cap, delta)


def width(made: Guarantee) -> int:
    """How many values the widest test covers, counted from the noise and the least value shown."""
    guard, k = made.allotments[0], made.threshold
    if made.rule is Rule.EXACT:
        return k
    least = guard.least_shown or 0
    noisy = guard.table.limit + (k if made.rule is Rule.NOISY else least - k)
    return max(noisy, k if made.rule is Rule.STRICT else 0)


def refusal(made: Guarantee) -> str:
    with pytest.raises(DocumentError) as refused:
        check(made)
    return str(refused.value)


@pytest.mark.parametrize("rule", [Rule.NOISY, Rule.STRICT])
@pytest.mark.parametrize("parts", [COUNTS, QUARTER, SIXTH], ids=["1", "1/4", "1/6"])
@pytest.mark.parametrize("epsilon", ["0.01", "0.000001"])
@pytest.mark.parametrize("cap", [1, 3])
def test_the_least_epsilon_that_works_is_named(parts: list[Part], rule: Rule, epsilon: str, cap: int) -> None:
    said = refusal(promised(parts, epsilon, rule=rule, cap=cap))
    (least,) = re.findall(r"this query needs ε = ([\d.]+) or more", said)
    assert "threshold of" not in said, "no threshold helps"
    check(promised(parts, least, rule=rule, cap=cap))
    digits = least.lstrip("0.").replace(".", "")
    assert len(digits) <= 2
    place = Fraction(1, 10 ** len(least.partition(".")[2]))
    below = Fraction(least) - (place if len(digits) == 2 else place / 10)
    assert width(promised(parts, str(below), rule=rule, cap=cap)) > LARGEST_RANGE
    refusal(promised(parts, str(below), rule=rule, cap=cap))


def test_a_smaller_threshold_is_advised_only_where_one_works() -> None:
    said = refusal(promised(COUNTS, "0.04", k=2000))
    (k,) = map(int, re.findall(r"a threshold of (\d+) or less would do", said))
    assert width(promised(COUNTS, "0.04", k=k)) <= LARGEST_RANGE < width(promised(COUNTS, "0.04", k=k + 1))
    check(promised(COUNTS, "0.04", k=k))
    (least,) = re.findall(r"needs ε = ([\d.]+) or more", said)
    check(promised(COUNTS, least, k=2000))
    said = refusal(promised(COUNTS, "1", k=3000, rule=Rule.EXACT))
    assert said.endswith("a threshold of 2048 or less would do") and "needs ε" not in said
    said = refusal(promised(COUNTS, "0.01", k=3000))
    assert said.endswith("it needs both a larger ε and a smaller threshold")


def test_what_fits_is_not_refused() -> None:
    for rule in Rule:
        check(promised(QUARTER, "1", rule=rule))
    check(promised(COUNTS, "100"))


@pytest.mark.parametrize("page", ["governance.md", "statistics.md"])
def test_the_floor_on_the_pages_is_the_engines(page: str) -> None:
    text = " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())
    (sentence,) = re.findall(r"[^.]*small-cell test can look[^;]*;[^.]*`mpc-engine plan QUERY`", text)
    named = re.findall(r"ε = (0\.\d+)", sentence)
    found = [refusal(promised(parts, "0.001")) for parts in (COUNTS, QUARTER)]
    assert named == [re.findall(r"needs ε = ([\d.]+)", said)[0] for said in found]
