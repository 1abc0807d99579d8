import re

from smai_lib import document


def test_readme_shows_the_shipped_results():
    text = document.README.read_text()
    assert document.refreshed(text) == text
    for name in ("result", "headline"):
        assert f"<!-- {name}:" in text and f"<!-- /{name} -->" in text
    assert document.refreshed(text.replace("U-Net |", "U-Net | 99.99 % |", 1)) == text


def test_the_librarys_example_runs_and_leaves_a_result(tmp_path, monkeypatch):
    """As it stands in the README, in a folder of its own, on the sample."""
    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    monkeypatch.chdir(tmp_path)
    section = document.README.read_text().split("\n## The library\n")[1].split("\n## ")[0]
    block = re.search(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert block, "no python block under 'The library'"
    exec(block[1], {"__name__": "example"})  # noqa: S102  the README is ours
    assert list(tmp_path.rglob("result.json")), "no run left its result"
