from smai_lib import headline


def test_readme_shows_the_shipped_results():
    text = headline.README.read_text()
    assert headline.refreshed(text) == text
    for name in ("result", "headline"):
        assert f"<!-- {name}:" in text and f"<!-- /{name} -->" in text
    assert headline.refreshed(text.replace("U-Net |", "U-Net | 99.99 % |", 1)) == text
