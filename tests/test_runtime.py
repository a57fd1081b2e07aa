"""What every job does around its work."""

from __future__ import annotations

import os
import socket
import time
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from diet_ray import runtime
from diet_ray.config import Command, ConfigError, ResourcesConfig, parse_command_line
from diet_ray.runtime import ClusterError

QUICKSTART = str(Path(__file__).parents[1] / "configs/quickstart.yaml")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in its order; Ray is not started."""
    found: list[str] = []

    def noted(name: str) -> Any:
        found.append(name)
        return nullcontext()

    monkeypatch.setattr(runtime, "connect", partial(noted, "connect"))
    monkeypatch.setattr(runtime.lease, "held", lambda _: noted("lease"))
    monkeypatch.setattr(runtime.progress, "start_logging", lambda: None)
    return found


def command(*arguments: str) -> Command:
    given = ["--config", QUICKSTART, *arguments]
    return parse_command_line("", arguments=given, quick=["search.trials=2"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["check", "lease", "connect", "plan", "job"]),
        (["--dry-run"], ["check", "connect", "plan"]),
    ],
)
def test_a_job_is_checked_then_planned_then_done(
    done: list[str], arguments: list[str], expected: list[str]
) -> None:
    steps = {name: lambda _, name=name: done.append(name) for name in ("job", "check", "plan")}
    runtime.run_job(steps["job"], command(*arguments), steps["check"], steps["plan"])
    assert done == expected


def test_a_users_error_ends_a_job_with_its_message_and_the_line_of_its_key(
    done: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: object) -> None:
        raise ConfigError("search.space.dcn.num_cross_layers: too many")

    with pytest.raises(SystemExit) as ended:
        runtime.run_job(done.append, command(), check=refuse)
    assert ended.value.code == 2
    assert done == []
    text = Path(QUICKSTART).read_text()
    line = text[: text.index("num_cross_layers: ")].count("\n") + 1
    told = capsys.readouterr().err
    assert told == f"error: {QUICKSTART}:{line}: search.space.dcn.num_cross_layers: too many\n"


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ray's note of the cluster that was started last on this machine; not there yet."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_a_cluster_that_answers_is_joined(
    note: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert runtime._address() is None
    with socket.create_server(("127.0.0.1", 0)) as head:
        note.write_text(f"127.0.0.1:{head.getsockname()[1]}")
        assert runtime._address() is None
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{head.getsockname()[1]}")
        assert runtime._address() is None
    for named in ("local", "auto", "ray://elsewhere:10001"):
        monkeypatch.setenv("RAY_ADDRESS", named)
        assert runtime._address() is None
    assert caplog.text == ""


def test_a_named_cluster_that_does_not_answer_yet_is_waited_for_aloud(
    note: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        named = f"127.0.0.1:{head.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", named)
    assert runtime._address() is None
    assert f"RAY_ADDRESS={named}: nothing answers there" in caplog.text


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "[::1]:{port}", "", "damaged"])
def test_of_a_cluster_that_is_gone_a_note_is_no_address(
    note: Path, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        note.write_text(address.format(port=head.getsockname()[1]))
    assert runtime._address() == "local"
    assert f"{note} names a cluster at" in caplog.text
    assert "that does not answer" in caplog.text


def test_a_named_cluster_that_is_gone_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at head:6379")

    monkeypatch.setattr(runtime.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(runtime.ray, "init", unreachable)
    told = "Failed to connect to Ray cluster at head:6379; start that cluster, or set RAY_ADDRESS"
    with pytest.raises(ClusterError, match=told), runtime.connect():
        raise AssertionError("connected")


@pytest.mark.usefixtures("ray_session")
def test_idle_workers_are_kept_for_the_next_tasks() -> None:
    """More of them than there are CPUs, where Ray itself would end some after a second."""

    @ray.remote(num_cpus=0)
    def number() -> int:
        time.sleep(2)  # until the others have started
        return os.getpid()

    workers = set(ray.get([number.remote() for _ in range(4)]))
    assert len(workers) == 4
    time.sleep(4)
    for worker in workers:
        os.kill(worker, 0)  # raises if there is no such process


def test_any_other_error_keeps_its_traceback(done: list[str]) -> None:
    def fail(_: object) -> None:
        raise KeyError("a defect of ours")

    with pytest.raises(KeyError, match="a defect of ours"):
        runtime.run_job(fail, command())


def stage_needs(asked: ResourcesConfig, workers: int) -> dict[str, float]:
    scoring = asked.scoring_workers[0]
    return {
        "CPU": workers * asked.meta_worker_cpus
        + scoring * asked.scoring_cpus
        + asked.memory_servers * asked.memory_server_cpus,
        "GPU": workers * asked.meta_worker_gpus + scoring * asked.scoring_gpus,
    }


amounts = st.sampled_from([0.1, 0.25, 0.3, 0.5, 1.0, 2.0])


@given(
    workers=st.lists(st.integers(1, 9), min_size=2, max_size=2).map(sorted),
    cpus=amounts,
    gpus=amounts | st.just(0.0),
    limits=st.tuples(st.integers(1, 16), st.integers(0, 4)),
)
def test_meta_workers_leave_room_for_the_rest_of_a_stage(
    workers: list[int], cpus: float, gpus: float, limits: tuple[int, int]
) -> None:
    asked = ResourcesConfig(
        meta_workers=workers, meta_worker_cpus=cpus, meta_worker_gpus=gpus, scoring_gpus=gpus
    )
    has = dict(zip(("CPU", "GPU"), limits, strict=True))

    def fit(count: int) -> bool:
        return all(need <= has[kind] + 1e-6 for kind, need in stage_needs(asked, count).items())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "_limits", lambda _: has)
        patch.setattr(runtime, "_present", lambda: has)
        found = runtime.room_for_meta_workers(asked)
        now = runtime.room_for_meta_workers_now(asked)
    fewest, most = workers
    assert found == max([fewest, *filter(fit, range(fewest, most + 1))])
    assert now == max([0, *filter(fit, range(200))])


def test_what_a_cluster_can_never_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_limits", lambda _: {"CPU": 3.0, "GPU": 0.0})

    def check(**resources: Any) -> None:
        settings = (("--set", f"resources.{key}={value}") for key, value in resources.items())
        runtime.check_resources(command(*chain(*settings)).config)

    beside = {"scoring_cpus": 1, "scoring_workers": [1, 9], "memory_server_cpus": 0.5}
    check(**beside, meta_workers=[3, 99], meta_worker_cpus=0.5)
    check(**beside, meta_workers=1, reference_workers=[3, 9])
    told = r"the run needs {} {} at once \(meta_workers.*the cluster can give {}; ask for less, or"
    with pytest.raises(ConfigError, match=told.format(3.5, "CPU", 3)):
        check(**beside, meta_workers=4, meta_worker_cpus=0.5)
    with pytest.raises(ConfigError, match=told.format(4, "CPU", 3)):
        check(**beside, meta_workers=1, reference_workers=4)
    with pytest.raises(ConfigError, match=told.format(0.5, "GPU", 0)):
        check(**beside, meta_workers=[2, 3], meta_worker_gpus=0.25)
