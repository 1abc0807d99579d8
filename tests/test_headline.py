from smai_lib import headline


def test_readme_shows_the_shipped_results():
    block = headline.HEADLINE.search(headline.README.read_text())[2]
    assert block == headline.headline()
