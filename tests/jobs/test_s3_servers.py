"""What the servers need is installed in a fresh container, and where it cannot be, the error says what to do."""

import os

import pytest
import s3_servers

APT = """#!/bin/sh
echo "$*" >> {folder}/calls
case "$1" in
  update) touch {folder}/list;;
  install) test -e {folder}/list && printf '#!/bin/sh\\n' > {folder}/memcached && chmod +x {folder}/memcached;;
esac
"""


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """A system without memcached, whose `apt-get` knows no package before it is told to update."""
    (tmp_path / "apt-get").write_text(APT.format(folder=tmp_path))
    (tmp_path / "apt-get").chmod(0o755)
    for tool in ("touch", "chmod", "printf", "test"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def test_memcached_is_installed_where_packages_were_never_listed(apt):
    assert s3_servers.install_memcached() == str(apt / "memcached")
    calls = [line.split()[0] for line in (apt / "calls").read_text().splitlines()]
    assert calls == ["install", "update", "install"]
    assert s3_servers.install_memcached() == str(apt / "memcached")
    assert len((apt / "calls").read_text().splitlines()) == 3


def test_an_install_that_fails_says_why(apt):
    (apt / "apt-get").write_text("#!/bin/sh\necho no network\nexit 100\n")
    with pytest.raises(RuntimeError, match=r"apt-get ended with code 100; .*\nno network"):
        s3_servers.install_memcached()


def test_who_may_not_install_is_told_what_to(apt, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RuntimeError, match="install memcached"):
        s3_servers.install_memcached()
    assert not (apt / "calls").exists()
