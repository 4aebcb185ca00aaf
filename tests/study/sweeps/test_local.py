"""Workers that die: what they were at is tried once more, all else is not harmed."""

import subprocess
import sys

import orjson
import pytest

from offsim import InputError
from offsim.study.sweeps.local import DIED, outcomes
from tests.study.small_sweeps import dies_of_bombs, small_sweep


def refuses(payload):
    raise InputError("not here")


def numbered(payloads):
    return [(b"%d" % number, payload) for number, payload in enumerate(payloads)]


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_task_has_its_outcome(jobs):
    tasks = numbered([b"echo %d" % n for n in range(20)])
    assert sorted(outcomes(tasks, jobs, dies_of_bombs)) == sorted(tasks)
    assert list(outcomes([], jobs, dies_of_bombs)) == []


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_task_that_kills_its_worker_twice_is_an_error_and_the_others_are_not(jobs, tmp_path):
    once = b"once %s" % str(tmp_path / "died").encode()
    tasks = numbered([b"echo", b"bomb", once, b"echo", b"bomb", b"echo"])
    found = dict(outcomes(tasks, jobs, dies_of_bombs))
    died = {"error": DIED}
    assert [found[key] if payload != b"bomb" else orjson.loads(found[key]) for key, payload in tasks] == [
        b"echo",
        died,
        once,
        b"echo",
        died,
        b"echo",
    ]


def test_tasks_are_taken_as_workers_become_free():
    taken = 0

    def tasks():
        nonlocal taken
        for task in numbered([b"echo"] * 50):
            taken += 1
            yield task

    for done, _ in enumerate(outcomes(tasks(), 2, dies_of_bombs)):
        assert taken <= done + 1 + 2 * 2


def test_a_worker_that_refuses_ends_all():
    with pytest.raises(InputError, match="not here"):
        list(outcomes(numbered([b"echo"] * 9), 2, refuses))


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_a_script_needs_no_guard(how, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import offsim\nprint(len(offsim.sweep({small_sweep()!r}, jobs=2)))\n")
    with script.open() as file:
        arguments, stdin = ([str(script)], None) if how == "file" else (["-"], file)
        run = subprocess.run([sys.executable, *arguments], stdin=stdin, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("6\n", "")
