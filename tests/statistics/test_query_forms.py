"""Queries as people write them at first: one name for a list, a filter in the wrong form, too small an ε."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.documents import parse
from mpc_engine.errors import DocumentError
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.where import Where
from tests.statistics.test_queries import CODEBOOK

ONE: dict[str, Any] = {"variable": "sex", "in": ["F"]}


def query(**keys: Any) -> dict[str, Any]:
    return {"preset": "crosstab", "by": ["sex"], "privacy": {"epsilon": "1"}} | keys


@given(st.sampled_from(["by", "where"]), st.sampled_from(["sex", "stage", "ages"]))
def test_a_single_name_or_filter_is_the_list_of_it(key: str, name: str) -> None:
    alone: Any = name if key == "by" else {"variable": name, "in": ["I"]}
    one, listed = parse_query(query(**{key: alone})), parse_query(query(**{key: [alone]}))
    assert one == listed and one.digest() == listed.digest()
    assert one.digest_fields()[key] == [alone]


def test_so_are_other_lists_of_names_and_filters_that_have_been_read() -> None:
    keys = {"preset": "incidence", "age": "ages", "population": "p", "privacy": {"epsilon": "1"}}
    one = parse_query({**keys, "standards": "us_2000", "tumour": "site", "by": "site"})
    listed = parse_query({**keys, "standards": ["us_2000"], "tumour": ["site"], "by": ["site"]})
    assert one.digest() == listed.digest()
    assert parse_query(query(where=(parse(ONE, Where),))).digest() == parse_query(query(where=ONE)).digest()


EXAMPLE = r'where = \[\{ variable = "tumour", in = \["leukaemia"\] \}\]'


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"where": {"tumour": "leukemia"}}, f"where: .*{EXAMPLE}"),
        ({"where": "leukemia"}, f"where: .*{EXAMPLE}"),
        ({"where": [ONE, {"tumour": ["x"]}]}, rf"where\[1\]: .*{EXAMPLE}"),
        ({"where": ["sex"]}, rf"where\[0\]: .*{EXAMPLE}"),
        ({"where": {"variable": "sex", "in": "F"}}, r'where\.in: must be a list, such as in = \["leuk'),
        ({"where": [{"in": ["F"]}]}, r"where\[0\]\.variable: is required and missing"),
        ({"where": [{**ONE, "of": 1}]}, r"where\[0\]\.of: is not a key known here"),
        ({"by": 3}, r'by: must be a list of variables, such as by = \["sex"\]'),
        ({"by": {"sex": "F"}}, r"by: must be a list of variables"),
        ({"by": []}, r"by: must have at least 1"),
        ({"by": "sexes"}, r"by\[0\]: the codebook has no variable 'sexes'"),
        ({"bye": "sex"}, r"bye: is not a key known here"),
    ],
)
def test_a_wrong_form_is_answered_with_an_example(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=f"^q.toml: {message}"):
        parse_query(query(**keys), "q.toml").layout(CODEBOOK)


def test_an_event_lists_its_labels() -> None:
    keys = {"time": "days", "event": {"variable": "dead", "in": "yes"}, "grid": {"edges": [1]}}
    with pytest.raises(DocumentError, match=r"event\.in: must be a list, such as"):
        parse_query({"preset": "survival", **keys, "privacy": {"epsilon": "1"}})


def test_too_small_an_epsilon_names_the_document_and_one_that_works() -> None:
    mean = {"preset": "mean", "variable": "age", "by": "sex"}
    asked = parse_query({**mean, "privacy": {"epsilon": "0.1"}}, "mean.toml")
    words = r"^mean\.toml: privacy: with ε = 0\.1 and threshold 5 .*: this query needs ε = 0\.17 or more$"
    with pytest.raises(DocumentError, match=words):
        asked.validate_on(CODEBOOK)
    parse_query({**mean, "privacy": {"epsilon": "0.17"}}).validate_on(CODEBOOK)
    with pytest.raises(DocumentError, match=r"^mean\.toml: privacy: noise table: "):
        parse_query({**mean, "privacy": {"epsilon": "900"}}, "mean.toml").validate_on(CODEBOOK)
    with pytest.raises(DocumentError, match="by"):
        parse_query({**mean, "by": "nil", "privacy": {"epsilon": "1"}}).validate_on(CODEBOOK)
