"""DAGs by Git: an environment's branch moves only forwards along main, Airflow's own bundle follows it, and
runs keep the commit that they began with."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from airflow.providers.git.bundles.git import GitDagBundle

from airloop.settings import REPOSITORY

HOW_TO = REPOSITORY / "docs" / "how-to" / "release-and-deploy.md"


class Checkout:
    """A checkout with the script in it, and the remote that it pushes to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.remote = folder / "checkout", folder / "remote.git"
        self.git("init", "--quiet", "--bare", "--initial-branch", "main", str(self.remote), cwd=folder)
        self.git("clone", "--quiet", str(self.remote), str(self.folder), cwd=folder)
        (self.folder / "scripts" / "ci").mkdir(parents=True)
        shutil.copy(REPOSITORY / "scripts" / "ci" / "deploy_dags.sh", self.folder / "scripts" / "ci")

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=cwd or self.folder, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, text: str, *, push: bool = True) -> str:
        """A commit whose DAG file says `text`."""
        (self.folder / "dags").mkdir(exist_ok=True)
        (self.folder / "dags" / "one.py").write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", text)
        if push:
            self.git("push", "--quiet", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")

    def deploy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        script = self.folder / "scripts" / "ci" / "deploy_dags.sh"
        return subprocess.run(["bash", str(script), *arguments], capture_output=True, text=True, check=False)

    def deployed(self, environment: str) -> str:
        return self.git("ls-remote", str(self.remote), f"refs/heads/deploy/{environment}").partition("\t")[0]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_bundle_that_the_docs_configure_follows_and_a_run_keeps_its_commit(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(tmp_path / "bundles"))
    text = HOW_TO.read_text("utf-8")
    (configured,) = json.loads(text.partition("```json\n")[2].partition("```")[0])
    assert configured["classpath"] == f"{GitDagBundle.__module__}.{GitDagBundle.__qualname__}"
    # The connection holds the address and a key, which a folder needs none of.
    kwargs = configured["kwargs"] | {"repo_url": str(checkout.remote)}
    del kwargs["git_conn_id"]

    def bundle(version: str | None = None) -> GitDagBundle:
        opened = GitDagBundle(name=configured["name"], version=version, **kwargs)
        opened.initialize()
        return opened

    def version_of(opened: GitDagBundle) -> str:
        found = opened.get_current_version()
        return str(getattr(found, "version", found))

    first = checkout.commit("first")
    assert checkout.deploy("production", first).returncode == 0
    following = bundle()
    assert version_of(following) == first
    second = checkout.commit("second")
    following.refresh()
    assert version_of(following) == first, "main alone deploys nothing"
    assert checkout.deploy("production", second).returncode == 0
    following.refresh()
    assert version_of(following) == second
    assert (following.path / "one.py").read_text() == "second"
    assert (bundle(first).path / "one.py").read_text() == "first"


def test_an_environment_goes_back_only_when_that_is_said(checkout: Checkout) -> None:
    first, second = checkout.commit("first"), checkout.commit("second")
    assert checkout.deploy("staging", second).returncode == 0
    refused = checkout.deploy("staging", first)
    assert refused.returncode == 1
    assert f"expected a commit after {second}" in refused.stderr
    assert checkout.deployed("staging") == second
    assert checkout.deploy("staging", first, "--back").returncode == 0
    assert checkout.deployed("staging") == first
    assert checkout.deployed("production") == ""
    again = checkout.deploy("staging", first)
    assert (again.returncode, again.stdout) == (0, f"deploy: deploy/staging is at {first}\n")


def test_only_what_is_on_main_is_deployed(checkout: Checkout) -> None:
    checkout.commit("first")
    refused = checkout.deploy("staging", checkout.commit("not merged", push=False))
    assert refused.returncode == 1
    assert "of origin's main" in refused.stderr
    assert checkout.deployed("staging") == ""


@pytest.mark.parametrize("arguments", [(), ("staging",), ("staging", "main"), ("../main", "0" * 40)])
def test_it_takes_an_environment_and_a_whole_commit(checkout: Checkout, arguments: tuple[str, ...]) -> None:
    checkout.commit("first")
    assert "expected an environment and a whole commit" in checkout.deploy(*arguments).stderr
