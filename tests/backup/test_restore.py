"""Backups of a deployment in one folder: what comes back, what is refused, and what survives being killed."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airloop import audit_log
from airloop.audit_log import append_record
from airloop.backup import BackupError
from airloop.backup.__main__ import main
from airloop.backup.create import create
from airloop.backup.erasures import PROVED
from airloop.backup.manifest import Manifest, backup_names, read_manifest, write_manifest
from airloop.backup.place import Place, object_name, open_place
from airloop.backup.restore import NOTE, Restored, restore
from airloop.backup.retention import retire
from airloop.backup.verify import verify
from airloop.erasure.suppression import read_list, suppress_subject
from airloop.lakehouse.catalog import open_catalog
from airloop.settings import Settings, environment_of
from airloop.use_cases.flight_delay import USE_CASE
from tests.backup.conftest import facts_of, lines_of_json, register_model, rows


def place_of(settings: Settings) -> Place:
    return open_place(settings, str(settings.backup_uri))


def back_up(settings: Settings) -> Manifest:
    made = create(settings, place_of(settings), copied="all")
    return read_manifest(place_of(settings), made.name)


def restored(settings: Settings, **options) -> Restored:
    place = place_of(settings)
    return restore(settings, place, read_manifest(place), **options)


def test_all_comes_back_as_it_was_and_what_can_be_made_again_does_not(deployment, lose):
    before = facts_of(deployment)
    back_up(deployment)
    lose(deployment)
    done = restored(deployment)
    assert facts_of(deployment) == before
    assert before["tables"]["raw.flights"][-1][1] == 150
    assert before["versions"][0][2] == ["champion"]
    with closing(sqlite3.connect(deployment.state_dir / "airflow" / "airflow.db")) as database:
        assert database.execute("SELECT count(*) FROM dag_run").fetchone() == (500,)
    for name in ("scratch/results/old.json", "logs/jobs/today.jsonl", NOTE):
        assert not (deployment.state_dir / name).exists()
    stored = [path.read_text() for path in deployment.state_dir.rglob("saved_model.pb")]
    assert "registered" in stored
    assert "never registered" not in stored
    assert (done.tables, done.tables_to_rebuild, done.secrets_missing, done.erasures_to_repeat) == (
        3,
        (),
        (),
        (),
    )
    assert audit_log.verify(deployment).sequence == 2
    # The restored log goes on.
    assert append_record(deployment, kind="promoted", key="2", what={}).sequence == 3
    for name in ("audit_log/audit.jsonl", "signing/signing_key.pem", "erasure/key"):
        assert (deployment.state_dir / name).stat().st_mode & 0o077 == 0


def test_the_commands_end_with_one_line_of_json_and_say_the_time(deployment, lose, monkeypatch, capfd):
    for name, value in environment_of(deployment).items():
        monkeypatch.setenv(name, value)
    assert main(["create"]) == 0
    assert main(["verify"]) == 0
    lose(deployment)
    assert main(["restore"]) == 0
    created, verified, done = lines_of_json(capfd.readouterr().out)
    for document in (created, verified, done):
        assert document["seconds"] > 0
        assert document["name"] == created["name"]
    assert main(["list"]) == 0
    assert created["name"] in capfd.readouterr().out


def test_no_secret_is_in_a_backup_in_the_clear(deployment):
    back_up(deployment)
    contents = b"".join(
        path.read_bytes() for path in Path(deployment.backup_uri).rglob("*") if path.is_file()
    )
    assert b"weights" in contents
    key = (deployment.state_dir / "erasure" / "key").read_bytes()
    for secret in (b"planted-fernet-key", b"planted-password", b"planted-private-key", key):
        assert secret not in contents


def test_without_a_key_secrets_are_left_out_and_must_be_brought(deployment, lose):
    bare = deployment.model_copy(update={"backup_key": None})
    made = create(bare, place_of(bare), copied="all")
    assert made.secrets == "left out"
    assert "airflow/secrets.json" in made.remarks[0]
    gone = lose(bare)
    with pytest.raises(BackupError, match="they come back"):
        restored(bare)
    assert not (bare.state_dir / NOTE).exists()
    (bare.state_dir / "erasure").mkdir(parents=True)
    (bare.state_dir / "erasure" / "key").write_bytes((gone / "erasure" / "key").read_bytes())
    done = restored(bare)
    assert set(done.secrets_missing) == {
        "airflow/secrets.json",
        "airflow/passwords.json",
        "signing/signing_key.pem",
    }
    assert any("airflow/secrets.json" in step for step in done.next_steps)


def test_keys_that_the_deployment_never_had_are_not_missed(deployment, lose):
    for name in ("signing/signing_key.pem", "signing/verification_key.pem"):
        (deployment.state_dir / name).unlink()
    back_up(deployment)
    gone = lose(deployment)
    (deployment.state_dir / "erasure").mkdir(parents=True)
    (deployment.state_dir / "erasure" / "key").write_bytes((gone / "erasure" / "key").read_bytes())
    done = restored(deployment, without_secrets=True)
    assert done.secrets_missing == ("airflow/secrets.json", "airflow/passwords.json")


def test_encrypted_secrets_need_their_key(deployment, lose, tmp_path):
    from cryptography.fernet import Fernet

    back_up(deployment)
    lose(deployment)
    with pytest.raises(BackupError, match="AIRLOOP_BACKUP_KEY"):
        restored(deployment.model_copy(update={"backup_key": None}))
    (tmp_path / "other.key").write_bytes(Fernet.generate_key())
    with pytest.raises(BackupError, match="another one"):
        restored(deployment.model_copy(update={"backup_key": tmp_path / "other.key"}))


def test_a_second_backup_writes_only_what_is_new(deployment, lose):
    first = create(deployment, place_of(deployment), copied="all")
    again = create(deployment, place_of(deployment), copied="all")
    assert again.size_bytes == pytest.approx(first.size_bytes, rel=0.01)
    assert again.new_bytes < first.new_bytes / 20
    open_catalog(deployment).load_table("raw.flights").append(rows(200, 7))
    register_model(deployment, "flight_delay")
    before = facts_of(deployment)
    back_up(deployment)
    lose(deployment)
    restored(deployment)
    assert facts_of(deployment) == before


def test_a_running_deployment_is_copied_consistently(deployment, lose):
    """Runs are written, models registered and records moved from the spool into their table meanwhile."""
    ended = threading.Event()
    failed: list[BaseException] = []
    spool = deployment.state_dir / "predictions"

    def move() -> None:
        """As landing does: the table has it before the spool loses it."""
        table = open_catalog(deployment).load_table("serving.predictions")
        for number in range(1000, 10_000):
            if ended.is_set():
                return
            record = spool / f"w-{number:08}.jsonl"
            record.write_text(f"{number}\n")
            if number >= 1003:
                table.append(rows(number - 3, 1))
                (spool / f"w-{number - 3:08}.jsonl").unlink()

    def run() -> None:
        with closing(
            sqlite3.connect(deployment.state_dir / "airflow" / "airflow.db", timeout=60)
        ) as database:
            while not ended.is_set():
                register_model(deployment, "flight_delay")
                database.execute("INSERT INTO dag_run (run_id) VALUES ('busy')")
                database.commit()

    def kept(work) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=kept, args=(work,)) for work in (move, run)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    manifests = []
    for _ in range(2):
        manifests.append(back_up(deployment))
    ended.set()
    for thread in threads:
        thread.join()
    assert not failed
    gone = lose(deployment)
    moved = {int(path.stem[2:]) for path in (gone / "predictions").glob("w-0000[1-9]*")}
    assert moved
    for number, manifest in enumerate(manifests):
        restore(deployment, place_of(deployment), manifest)
        # Opens every version of every table, and every registered version's artifacts.
        facts = facts_of(deployment)
        assert len(facts["versions"]) > 1
        in_table = (
            open_catalog(deployment).load_table("serving.predictions").scan().to_arrow()["n"].to_pylist()
        )
        in_spool = {int(path.stem[2:]) for path in spool.glob("w-0*.jsonl")}
        numbers = {n for n in in_table if n >= 1000} | {n for n in in_spool if n >= 1000}
        assert numbers == set(range(1000, max(numbers) + 1)), "a record is in neither"
        deployment.state_dir.rename(deployment.state_dir.with_name(f"done-{number}"))


def test_a_backup_that_is_killed_is_none_and_the_next_is_whole(deployment, lose, run_and_kill):
    before = facts_of(deployment)
    for method, calls in (("keep", 0), ("keep", 7), ("keep", 25), ("write", 0)):
        status = run_and_kill(deployment, "airloop.backup.create", before=method, calls=calls)
        assert status == -signal.SIGKILL
        assert backup_names(place_of(deployment)) == []
    with pytest.raises(BackupError, match="found none that was finished"):
        read_manifest(place_of(deployment))
    back_up(deployment)
    lose(deployment)
    restored(deployment)
    assert facts_of(deployment) == before


def test_a_restore_that_is_killed_is_run_again_and_no_other_is_begun_over_it(deployment, lose, run_and_kill):
    before = facts_of(deployment)
    first = back_up(deployment)
    register_model(deployment, "flight_delay")
    second = back_up(deployment)
    lose(deployment)
    for calls in (8, 20, 38):
        flags = ("--backup", first.name)
        status = run_and_kill(deployment, "airloop.backup.restore", *flags, before="copy_object", calls=calls)
        assert status == -signal.SIGKILL
        assert (deployment.state_dir / NOTE).exists()
    with pytest.raises(BackupError, match="go on with the restore"):
        restore(deployment, place_of(deployment), second)
    restore(deployment, place_of(deployment), first)
    assert facts_of(deployment) == before
    assert not list(deployment.state_dir.rglob("*.restored"))


def test_a_deployment_that_is_not_empty_is_left_as_it_is(deployment):
    back_up(deployment)
    before = facts_of(deployment)
    with pytest.raises(BackupError, match="an empty deployment; found airflow's database, mlflow's database"):
        restored(deployment)
    assert facts_of(deployment) == before


def test_tables_alone_make_a_deployment_one_that_is_not_empty(deployment, lose):
    back_up(deployment)
    lose(deployment)
    catalog = open_catalog(deployment)
    catalog.create_namespace("raw")
    catalog.create_table("raw.others", schema=rows(0, 1).schema)
    with pytest.raises(BackupError, match="found tables in the catalog"):
        restored(deployment)


@pytest.mark.parametrize("damage", ["changed", "cut off", "gone"])
def test_a_damaged_backup_is_named_and_not_restored(deployment, lose, damage):
    manifest = back_up(deployment)
    part = next(
        part for part in manifest.parts if part.path.startswith("warehouse/") and ".parquet" in part.path
    )
    file = Path(deployment.backup_uri) / object_name(part.sha256)
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "cut off" else content[:-1] + bytes([content[-1] ^ 1]))
    lose(deployment)
    for work in (lambda: verify(place_of(deployment), manifest), lambda: restored(deployment)):
        with pytest.raises(BackupError) as caught:
            work()
        assert part.path in str(caught.value)
        assert "remove that object" in str(caught.value)
    assert not deployment.state_dir.exists() or not (deployment.state_dir / NOTE).exists()


def test_a_manifest_that_was_changed_or_cut_off_is_refused(deployment, lose):
    manifest = back_up(deployment)
    file = Path(deployment.backup_uri) / "backups" / f"{manifest.name}.json"
    text = file.read_text()
    for changed in (text[:-10], text.replace('"size": ', '"size": 1', 1)):
        file.write_text(changed)
        with pytest.raises(BackupError, match="restore another backup"):
            read_manifest(place_of(deployment), manifest.name)


def test_a_newer_format_or_schema_is_refused_saying_what_to_do(deployment, lose):
    manifest = back_up(deployment)
    place = place_of(deployment)
    write_manifest(place, manifest.model_copy(update={"format": 99, "name": "newer-format"}))
    with pytest.raises(BackupError, match=r"found the format 99.*the version of Airloop that made it"):
        read_manifest(place, "newer-format")
    lose(deployment)
    for name in ("airflow", "mlflow"):
        newer = manifest.databases[name].model_copy(update={"revision": "feedfacecafe"})
        changed = manifest.model_copy(update={"databases": {**manifest.databases, name: newer}})
        with pytest.raises(BackupError, match=f"revision of {name}'s database.*feedfacecafe"):
            restore(deployment, place, changed)
    assert manifest.databases["airflow"].revision is not None
    assert manifest.databases["mlflow"].revision is not None


def test_another_path_is_refused_with_the_setting_that_would_fit(deployment, tmp_path):
    back_up(deployment)
    elsewhere = deployment.model_copy(update={"state_dir": tmp_path / "elsewhere"})
    with pytest.raises(BackupError, match=rf"AIRLOOP_WAREHOUSE_URI to be file://{deployment.state_dir}"):
        restored(elsewhere)
    fits = elsewhere.model_copy(update={"warehouse_uri": deployment.warehouse_location})
    with pytest.raises(BackupError, match=rf"AIRLOOP_STATE_DIR to be {deployment.state_dir}"):
        restored(fits)


def _erase(settings: Settings, subject: str, ticket: str) -> None:
    """The list and the record of an erasure, without its scan of the tables."""
    digest = suppress_subject(settings, USE_CASE.erasure, subject)
    what = {"subject": digest, "reason": ticket, "use_case": "flight_delay"}
    append_record(settings, kind=PROVED, key=ticket, what=what)


@pytest.mark.parametrize("kept_by", ["the next backup", "files"])
def test_what_was_erased_after_a_backup_stays_erased_and_is_named(deployment, lose, kept_by):
    first = back_up(deployment)
    _erase(deployment, "N2LATER", "ticket 2")
    if kept_by == "the next backup":
        back_up(deployment)
    gone = lose(deployment)
    newer = {
        "suppressed": gone / "erasure" / "suppressed.jsonl",
        "newer_audit_log": gone / "audit_log" / "audit.jsonl",
    }
    done = restore(deployment, place_of(deployment), first, **(newer if kept_by == "files" else {}))
    assert [(erasure.reason, erasure.use_case) for erasure in done.erasures_to_repeat] == [
        ("ticket 2", "flight_delay")
    ]
    assert "make 1 erasures again" in done.next_steps[0]
    # Ingestion keeps both out from now on.
    assert sum(len(digests) for digests in read_list(deployment).digests.values()) == 2
    assert audit_log.verify(deployment).sequence == 3


def test_an_erasure_under_way_when_the_backup_was_made_is_repeated(deployment, lose):
    suppress_subject(deployment, USE_CASE.erasure, "N3UNDERWAY")
    back_up(deployment)
    lose(deployment)
    (erasure,) = restored(deployment).erasures_to_repeat
    assert erasure.reason is None
    assert erasure.column == USE_CASE.erasure.subject


def test_another_audit_log_is_not_taken_for_a_newer_one(deployment, lose, tmp_path):
    back_up(deployment)
    lose(deployment)
    other = Settings(state_dir=tmp_path / "other")
    for number in range(5):
        append_record(other, kind="promoted", key=str(number), what={})
    with pytest.raises(BackupError, match="found another beginning"):
        restored(deployment, newer_audit_log=audit_log.audit_log_file(other))


def test_retention_removes_what_only_old_backups_have_and_keeps_the_newest(deployment, lose):
    place = place_of(deployment)
    first = back_up(deployment)
    open_catalog(deployment).load_table("raw.flights").delete("n >= 0")
    second = back_up(deployment)
    aged = datetime.now(UTC) + timedelta(days=30)
    # A day's grace: another backup that is being made may rely on what the first alone has.
    assert retire(place, days=14, now=datetime.now(UTC) + timedelta(days=14, minutes=1)) == (first.name,)
    verify(place, first)
    (partial := Path(deployment.backup_uri) / "objects" / "partial").mkdir(exist_ok=True)
    (partial / "left").write_text("of a killed one")
    assert retire(place, days=14, now=aged) == ()
    retire(place, days=14, now=aged)
    assert not (partial / "left").exists()
    only_first = {part.sha256 for part in first.parts} - {part.sha256 for part in second.parts}
    assert only_first
    assert not any((Path(deployment.backup_uri) / object_name(sha256)).exists() for sha256 in only_first)
    verify(place, second)
    assert backup_names(place) == [second.name]


def test_a_table_whose_file_is_gone_stops_the_backup(deployment):
    data = next(deployment.warehouse.rglob("*.parquet"))
    data.unlink()
    with pytest.raises(BackupError, match=r"one that is gone, in each of 5 attempts"):
        back_up(deployment)
    assert backup_names(place_of(deployment)) == []


def test_without_a_place_the_schedule_makes_none(settings, monkeypatch, capfd):
    for name, value in environment_of(settings.model_copy(update={"backup_uri": None})).items():
        monkeypatch.setenv(name, value)
    assert main(["create", "--if-configured", "true"]) == 0
    assert "AIRLOOP_BACKUP_URI" in json.loads(capfd.readouterr().out)["skipped"]
    assert main(["create"]) == 65
