"""Every claim holds on the recorded results, and one that does not is not shown."""

import pytest

from smai_lib import claims
from smai_lib.core.errors import ConfigError, ReportError


@pytest.mark.parametrize("name", claims.all_claims())
def test_the_recorded_results_support(name):
    assert claims.holds(name)
    sentence = claims.sentence(name)
    assert sentence.endswith(".") and "\n" not in sentence


@pytest.fixture
def invented(monkeypatch):
    """Two claims that no topic has: one true, one false."""
    monkeypatch.setattr(claims, "_registry", {})
    monkeypatch.setattr(claims, "TOPICS", ())
    for function in (claims.all_claims, claims.holds):
        function.cache_clear()

    @claims.claim
    def runs_have_seeds(q1_lambda):
        """Every run
        has a seed.
        """
        return q1_lambda.results["seed"].notna().all()

    @claims.claim
    def one_is_two():
        """One is two."""
        return 1 == 2

    yield
    for function in (claims.all_claims, claims.holds):
        function.cache_clear()


def test_a_claim_is_shown_with_its_sentence_in_one_line(invented):
    assert claims.show("runs_have_seeds").data == "- ✓ Every run has a seed."


def test_a_false_claim_is_not_shown(invented):
    with pytest.raises(ReportError, match="do not support one_is_two: One is two"):
        claims.show("runs_have_seeds", "one_is_two")


def test_nothing_is_concluded_from_a_quick_run(invented):
    assert "recorded results" in claims.show("runs_have_seeds", profile="quick").data
    assert "recorded results" not in claims.show("runs_have_seeds", profile="full").data


def test_an_unknown_claim_is_named_with_those_that_exist(invented):
    with pytest.raises(ConfigError, match="found 'two', expected one of runs_have_seeds"):
        claims.show("two")


def test_a_claim_needs_a_sentence_and_a_name_of_its_own(invented):
    def one_is_two():
        """One is one."""

    one_is_two.__module__ = "another.topic"
    with pytest.raises(ConfigError, match="one_is_two: found it in"):
        claims.claim(one_is_two)
    with pytest.raises(ConfigError, match="no docstring"):
        claims.claim(lambda: True)
