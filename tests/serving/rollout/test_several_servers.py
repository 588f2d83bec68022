"""Several model servers behind one target: what clients get, and what a rollout leaves on each of them."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from google.protobuf import text_format

from airloop.errors import RolloutError
from airloop.prediction_request import assemble_inputs, example_request
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from serving import infra_check as infra_check_job
from serving.abandon import abandon
from serving.infra_check import replayed
from serving.model_config import ServedModel, config_message, exclusive, write_models
from serving.model_server.option_files import Tls
from serving.model_server_client import (
    AVAILABLE,
    CHAMPION,
    END,
    START,
    ModelServer,
    ModelServerDown,
    ModelServers,
)
from serving.promote import promote
from serving.serve import answer_as_champion, bring_into_line, serve
from tests.serving.rollout.stack import Replica, answer_directly, free_port, process, some_rows, wait_until

Candidate = Callable[..., int]
infra_check = partial(infra_check_job.infra_check, apart=False)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """Where `settings` has the model server's config, with nothing to serve yet."""
    file = tmp_path / "state" / "models" / "models.config"
    file.parent.mkdir(parents=True)
    file.write_text("model_config_list {}", "utf-8")
    return file


@pytest.fixture
def replicas(config_file: Path) -> Iterator[tuple[Replica, Replica]]:
    """Two model servers that are up."""
    both = Replica(config_file), Replica(config_file)
    for one in both:
        one.up()
    yield both
    for one in both:
        one.down()


@pytest.fixture
def several(settings: Settings, config_file: Path, replicas: tuple[Replica, Replica]) -> Settings:
    """Settings whose model server is the two."""
    assert settings.model_config_file == config_file
    return settings.model_copy(
        update={"model_server_target": "ipv4:" + ",".join(one.place for one in replicas)}
    )


@pytest.fixture
def versions(several: Settings, spec: UseCase, saved: dict[float, Path]) -> ServedModel:
    """Versions 1 and 2, which answer differently, on file and on both servers; 1 is the champion."""
    folder = several.models_dir / spec.model_name
    folder.mkdir()
    for version, bias in ((1, 0.0), (2, 1.0)):
        (folder / str(version)).symlink_to(saved[bias])
    model = ServedModel(spec.model_name, folder, frozenset({1, 2}), {CHAMPION: 1})
    with ModelServer.of(several) as both:
        serve(both, {spec.model_name: model}, timeout=30)
        write_models(several, {spec.model_name: model})
    return model


def champions(spec: UseCase, *replicas: Replica) -> list[int | None]:
    """The champion of each, asked alone."""
    found = []
    for one in replicas:
        with ModelServer(one.place) as client:
            found.append(client.labelled(spec.model_name, CHAMPION))
    return found


def roll_out(settings: Settings, spec: UseCase, version: int) -> None:
    """The whole rollout of a version."""
    infra_check(settings, spec, version)
    promote(settings, spec, version)


class Load:
    """Threads that ask for the champion, each as fast as it is answered; counts what came of it."""

    def __init__(self, server: ModelServer, spec: UseCase, *, threads: int = 4) -> None:
        self.answered: Counter[int] = Counter()
        self.failed: list[Exception] = []
        self._server, self._spec = server, spec
        self._row = {k: [v] for k, v in assemble_inputs(spec, example_request(spec), {}).items()}
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def _ask(self) -> None:
        while not self._end.is_set():
            try:
                found = self._server.predict(self._spec, self._row, version=CHAMPION, timeout=10)
                self.answered[found.version] += 1
            except Exception as error:
                self.failed.append(error)

    def wait_for(self, answers: int, *, by: int) -> None:
        """Until version `by` has answered so many more."""
        wanted = self.answered[by] + answers
        wait_until(lambda: self.answered[by] >= wanted, seconds=60, what=f"{answers} answers of {by}")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_a_server_that_goes_and_comes_back_fails_no_request(
    several: Settings, spec: UseCase, versions: ServedModel, replicas: tuple[Replica, Replica], tmp_path: Path
) -> None:
    one, other = replicas
    address, port = other.place.split(":")
    other.down()
    server = [
        *("-m", "serving.model_server", f"--bind_address={address}", f"--port={port}"),
        *(
            f"--model_config_file={several.model_config_file}",
            "--allow_version_labels_for_unavailable_models",
        ),
    ]
    # So that it shows who answers, version 2 is the first server's champion alone.
    answers = config_message({spec.model_name: versions.with_champion(2)})
    with (
        process(server, several, tmp_path / "model_server.log") as killed,
        ModelServer.of(several) as both,
        ModelServer(one.place) as alone,
    ):
        alone.reload(answers, timeout=10)
        wait_until(lambda: len(both.members()) == 2, seconds=90, what="the second server answers")
        with Load(both, spec) as load:
            load.wait_for(100, by=1)
            assert load.answered[2] > 50
            killed.kill()
            killed.wait()
            load.wait_for(100, by=2)
            other.up()
            load.wait_for(100, by=1)
            one.down()
            load.wait_for(100, by=1)
    assert load.failed == []


def test_each_step_reaches_every_server_and_one_that_was_down_catches_up(
    several: Settings, spec: UseCase, candidate: Candidate, replicas: tuple[Replica, Replica]
) -> None:
    first = candidate(0.0)
    roll_out(several, spec, first)
    assert champions(spec, *replicas) == [first, first]
    second = candidate(1.0)
    replicas[1].down()
    roll_out(several, spec, second)
    assert champions(spec, replicas[0]) == [second]
    replicas[1].up()
    assert champions(spec, replicas[1]) == [second]
    # Back again, with the other one down.
    replicas[0].down()
    assert answer_as_champion(several, spec, first)
    promote(several, spec, first, giving_up=second)
    assert champions(spec, replicas[1]) == [first]
    replicas[0].up()
    with ModelServer.of(several) as both:
        assert both.labelled(spec.model_name, CHAMPION) == first
        assert both.states(spec.model_name)[second].state == AVAILABLE
        abandon(several, spec, second)
        assert both.states(spec.model_name)[second].state in (END, "UNLOADING")
        for one in replicas:
            one.down()
        with pytest.raises(ModelServerDown, match=replicas[0].place):
            both.labelled(spec.model_name, CHAMPION)


def test_a_server_that_read_the_file_before_it_was_written_is_told_as_the_job_ends(
    several: Settings, spec: UseCase, versions: ServedModel, replicas: tuple[Replica, Replica]
) -> None:
    models = {spec.model_name: versions.with_champion(2)}
    replicas[1].down()
    with ModelServer.of(several) as both:
        serve(both, models, timeout=30)
        replicas[1].up()
        assert champions(spec, *replicas) == [2, 1]
        write_models(several, models)
    assert champions(spec, *replicas) == [2, 2]


def test_a_server_that_came_up_without_a_change_is_brought_into_line_and_answers_meanwhile(
    several: Settings, spec: UseCase, versions: ServedModel, replicas: tuple[Replica, Replica], tmp_path: Path
) -> None:
    name = spec.model_name
    old = tmp_path / "old.config"
    first = ServedModel(name, versions.base_path, frozenset({1}), {CHAMPION: 1})
    old.write_text(text_format.MessageToString(config_message({name: first})), "utf-8")
    write_models(several, {name: versions.with_champion(2)})
    replicas[1].down()
    bring_into_line(several)
    assert champions(spec, replicas[0]) == [2]
    replicas[1].up(old)
    with ModelServer.of(several) as both, ModelServer(replicas[1].place) as stale:
        assert both.labelled(name, CHAMPION) is None
        assert both.states(name)[2].state == START
        with Load(stale, spec) as load:
            load.wait_for(20, by=1)
            with exclusive(several):
                bring_into_line(several)
            assert champions(spec, replicas[1]) == [1]  # Another job was changing what is served.
            bring_into_line(several)
            load.wait_for(20, by=2)
        assert load.failed == []
        assert set(load.answered) == {1, 2}
        assert both.labelled(name, CHAMPION) == 2
        assert both.states(name)[2].state == AVAILABLE


def test_a_version_is_as_far_as_where_it_is_least_far(
    several: Settings,
    spec: UseCase,
    saved: dict[float, Path],
    replicas: tuple[Replica, Replica],
    tmp_path: Path,
) -> None:
    name = spec.model_name
    recorded = [(number,) for number in answer_directly(saved[0.0], spec, some_rows(spec))]
    # Each has a copy of its own; that of the second is another model, and broken in its second version.
    for number, bias in ((0, 0.0), (1, 1.0)):
        for version in (1, 2):
            folder = tmp_path / str(number) / str(version)
            folder.parent.mkdir(exist_ok=True)
            folder.symlink_to(saved[bias])
        with ModelServer(replicas[number].place) as client:
            if number == 1:
                (tmp_path / "1" / "2").unlink()
                (tmp_path / "1" / "2").mkdir()
                (tmp_path / "1" / "2" / "saved_model.pb").write_text("not a model")
            model = ServedModel(name, tmp_path / str(number), frozenset({1, 2}))
            client.reload(config_message({name: model}), timeout=30)
    with ModelServer.of(several) as both:
        assert both.states(name)[1].state == AVAILABLE
        broken = both.states(name)[2]
        assert broken.state == END
        assert broken.error.startswith(f"ipv4:{replicas[1].place}: ")
        assert both.inputs(name, 2) == {item.name for item in spec.inputs}
        with pytest.raises(RolloutError, match=f"answered by ipv4:{replicas[1].place}"):
            replayed(spec, both, 1, some_rows(spec), recorded)
        replicas[1].down()
        assert both.states(name)[2].state == AVAILABLE
        assert replayed(spec, both, 1, some_rows(spec), recorded) < 1e-5


def certificate(folder: Path, names: str) -> Tls:
    """A self-signed certificate for `names`, and its key."""
    key, made = folder / f"{names}.key", folder / f"{names}.pem"
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x")
    subprocess.run(
        [*command, "-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(made)],
        check=True,
        capture_output=True,
    )
    return Tls(key=key.read_bytes(), certificate=made.read_bytes())


@pytest.mark.parametrize(
    ("names", "target", "answers"),
    [
        ("DNS:localhost", "dns:///localhost:{port}", True),
        ("IP:127.0.0.1", "dns:///localhost:{port}", False),
        ("IP:127.0.0.1", "ipv4:127.0.0.1:{port},127.0.0.1:{gone}", True),
        ("DNS:localhost", "ipv4:127.0.0.1:{port}", False),
    ],
)
def test_each_server_shows_a_certificate_for_the_name_or_the_address(
    config_file: Path, tmp_path: Path, spec: UseCase, names: str, target: str, answers: bool
) -> None:
    tls = certificate(tmp_path, names)
    replica = Replica(config_file, tls=tls)
    replica.up()
    place = {"port": replica.place.split(":")[1], "gone": free_port()}
    row = {k: [v] for k, v in assemble_inputs(spec, example_request(spec), {}).items()}
    try:
        with ModelServers(target.format(**place), tls.certificate) as servers:
            if answers:
                assert servers.states("none") == {}
            else:
                with pytest.raises(ModelServerDown):
                    servers.states("none")
            # A server that is reached refuses, for it has no such model.
            with pytest.raises(Exception, match="not found" if answers else "no model server at"):
                servers.predict(spec, row, version=1, timeout=5)
    finally:
        replica.down()
