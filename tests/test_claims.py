"""Every claim holds on the recorded results, and one that does not is not shown."""

import pytest

from smai_lib import claims
from smai_lib.core.errors import ConfigError, ReportError


@pytest.mark.parametrize("name", claims.all_claims())
def test_the_recorded_results_support(name):
    claims.check(name)
    sentence = claims.sentence(name)
    assert sentence.endswith(".") and "\n" not in sentence


@pytest.fixture
def invented(monkeypatch):
    """Two claims that no topic has: one true, one false."""
    monkeypatch.setattr(claims, "_registry", {})
    monkeypatch.setattr(claims, "TOPICS", ())

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


def test_a_claim_is_shown_with_its_sentence_in_one_line(invented):
    assert claims.show("runs_have_seeds").data == "- ✓ Every run has a seed."


def test_a_false_claim_is_not_shown(invented):
    with pytest.raises(ReportError, match=r"'one_is_two' is false .*: One is two\."):
        claims.show("runs_have_seeds", "one_is_two")


def test_nothing_is_concluded_from_a_quick_run(invented):
    assert "A quick run has too few" in claims.show("runs_have_seeds", profile="quick").data


def test_an_unknown_claim_is_named_with_those_of_similar_names(invented):
    with pytest.raises(ConfigError, match="unknown claim 'run_has_seeds'.*: runs_have_seeds$"):
        claims.show("run_has_seeds")


def test_a_claim_needs_a_sentence_and_a_name_of_its_own(invented):
    def one_is_two():
        """One is one."""

    one_is_two.__module__ = "another.topic"
    with pytest.raises(ConfigError, match="one_is_two: found it in"):
        claims.claim(one_is_two)
    with pytest.raises(ConfigError, match="no docstring"):
        claims.claim(lambda: True)
