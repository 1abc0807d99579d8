import socket
import time

import pytest

from smai_lib.core import sources


@pytest.mark.parametrize("serves", [True, False])
def test_a_download_that_fails_is_no_source_and_leaves_the_timeout_alone(serves, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "reachable", lambda url: True)
    timeouts = []

    def dataset(folder, download):
        timeouts.append(socket.getdefaulttimeout())
        if not serves:
            raise RuntimeError("broken off")

    assert sources.download(dataset, ["http://somewhere"], tmp_path) == serves
    assert timeouts == [sources.PATIENCE_SECONDS] and socket.getdefaulttimeout() is None


def test_a_host_that_never_answers_is_given_up_within_seconds():
    with socket.socket() as silent:  # accepts nothing, and its backlog of one is taken
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        taken = [socket.socket() for _ in range(2)]
        for client in taken:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        started = time.monotonic()
        assert not sources.reachable(f"http://127.0.0.1:{port}")
        assert time.monotonic() - started < 2 * sources.PATIENCE_SECONDS
        for client in taken:
            client.close()


def test_what_another_process_fetched_without_leaving_its_name_is_used(tmp_path):
    """Not there at the first look, there once the lock is had, by a fetch that was killed before it wrote its name."""
    cache, looks = tmp_path / "data" / "set", iter([False, True])
    found = sources.find(cache, lambda folder: next(looks), {"network": lambda folder: pytest.fail("fetched again")})
    assert found == ("data folder", cache)
