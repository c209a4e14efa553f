"""In place of ``nl_lightning.runs.worker``: writes down what happens to a run, and leaves a record.

Environment variables name variants. Those of FAIL fail. Those of WAIT wait to be told to stop, until they have a
checkpoint; with ONCE, at their first attempt only. Those of DEAF heed no signal. All wait for the file UNTIL, and the
variants in ``WAITS=VARIANTS:LINE`` for a line of ``order.log`` in the results folder, where each writes what it does.
"""

import os
import signal
import sys
import time

from untrained import record_of

from nl_lightning.errors import Stopped, stop_on_signals
from nl_lightning.study.lock import acquire
from nl_lightning.study.records import write_record
from nl_lightning.study.run import Run, identified


def main() -> int:
    run = identified(*sys.argv[2:])
    held = acquire(run.folder)
    if held is None:
        return 75
    run.prepare_folder()
    if is_in("DEAF", run):
        for each in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(each, signal.SIG_IGN)
    run.say("running", phase="train", done=1, total=2)
    try:
        code = measured(run)
    except Stopped as stopped:
        time.sleep(0.3)
        if stopped.preempted:
            run.checkpoint.write_text("")
            run.say("preempted")
        write(run, "stopped")
        code = stopped.exit_code
    held.release()
    return code


def measured(run: Run) -> int:
    write(run, "goes on" if run.checkpoint.exists() else "begin")
    again = is_in("ONCE", run) and lines(run).count(f"begin {run.variant.name}") > 1
    while is_in("WAIT", run) and not run.checkpoint.exists() and not again:
        time.sleep(0.05)  # a signal just before a long sleep begins would wait for its end
    if is_in("FAIL", run):
        run.say("failed", error="the dog ate it")
        return 2
    waits, _, line = os.environ.get("WAITS", "").partition(":")
    while run.variant.name in waits.split() and line not in lines(run):
        time.sleep(0.02)
    while not os.path.exists(os.environ.get("UNTIL", "/")):
        time.sleep(0.02)
    write(run, "end", os.environ["OMP_NUM_THREADS"])
    write_record(run.results, record_of(run))
    return 0


def is_in(variants: str, run: Run) -> bool:
    return run.variant.name in os.environ.get(variants, "").split()


def lines(run: Run) -> list[str]:
    return (run.results / "order.log").read_text().splitlines()


def write(run: Run, verb: str, *more: str) -> None:
    with (run.results / "order.log").open("a") as log:
        log.write(" ".join([verb, run.variant.name, *more]) + "\n")


if __name__ == "__main__":
    stop_on_signals()
    sys.exit(main())
