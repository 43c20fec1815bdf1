"""200 jobs under 10 SIGKILLs, with the transports' default settings.

A killed worker's messages lie on Redis for an hour then. Each round calls ten chains of two jobs and kills, at a random
moment of the work, a pool's child or a whole worker, which is started again. Plain tasks run on a worker that nobody
kills, so that each of them can be counted.
"""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.attack import Piece, bystander, make_server, make_stack, same_bytes, wait_until_over
from tests.worker.stacks import Stack, Worker, wait_for

pytestmark = [pytest.mark.worker, pytest.mark.fault, pytest.mark.timeout(600)]

ROUNDS, CHAINS = 10, 10


class Storm:
    """Three workers, and who shoots at them."""

    def __init__(self, stack: Stack, opened: ExitStack, chance: random.Random) -> None:
        self.stack, self.chance = stack, chance
        with ThreadPoolExecutor(3) as pool:
            made = [stack.worker("-c", "3", name=f"w{number}") for number in range(3)]
            self.workers: list[Worker] = list(pool.map(opened.enter_context, made))
        self.starting = ThreadPoolExecutor(3)
        self.down: list[Any] = []

    def round(self, kind: str) -> list[Piece]:
        """Ten chains, and a shot while they run."""
        before = len(self.stack.journal())
        pieces = [Piece(self.stack, f"{before}-{number}").call() for number in range(CHAINS)]
        moment = before + self.chance.randint(1, 3 * CHAINS)
        wait_for(lambda: len(self.stack.journal()) >= moment, 100, "work to shoot at")
        time.sleep(self.chance.uniform(0, 0.2))
        self.shoot(kind)
        return pieces

    def shoot(self, kind: str) -> None:
        victim = self.chance.choice([worker for worker in self.workers if worker not in self.busy()])
        if kind == "child":
            os.kill(self.chance.choice(wait_for(victim.children)), signal.SIGKILL)
        else:
            victim.kill()
            self.down.append((victim, self.starting.submit(victim.start)))

    def busy(self) -> list[Worker]:
        if len([1 for _, started in self.down if not started.done()]) == len(self.workers):
            wait([started for _, started in self.down])
        return [worker for worker, started in self.down if not started.done()]


def storm(name: str, folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    kinds = ["child", "worker"] * (ROUNDS // 2)
    chance.shuffle(kinds)
    with (
        make_server(job_seconds=0.5) as server,
        make_stack(name, folder, server) as stack,
        bystander(stack),
        ExitStack() as opened,
    ):
        under_fire = Storm(stack, opened, chance)
        started = time.monotonic()
        pieces = [piece for kind in kinds for piece in under_fire.round(kind)]
        last_shot = time.monotonic()
        wait(start for _, start in under_fire.down)
        wait_until_over(pieces, 300)
        after_s = time.monotonic() - last_shot

        assert all(piece.result.get(timeout=20)["metadata"]["celery_task_id"] == piece.tail_id for piece in pieces)
        assert [piece.jobs(server) for piece in pieces] == [[1, 1]] * len(pieces)  # 0 lost, 0 paid twice
        assert server.ledger.counts()["jobs"] == 2 * len(pieces) == 200
        is_same = same_bytes(server)
        assert all(is_same(task_id) for piece in pieces for task_id in (piece.id, piece.tail_id))
        assert all(stack.record(piece.id).until == stack.record(piece.tail_id).until == "done" for piece in pieces)
        assert all(len(set(piece.plain("link"))) == len(set(piece.plain("after"))) == 1 for piece in pieces)
        doubled = sum(len(piece.plain("link")) + len(piece.plain("after")) - 2 for piece in pieces)
        # A process that is killed leaves at most one run in the window: five children, and five workers of three.
        assert doubled <= 5 + 5 * 3
        print(
            f"{name}: {last_shot - started:.0f} s of shots, over {after_s:.0f} s later, {doubled} plain tasks doubled"
        )
        for worker in under_fire.workers:
            worker.kill()
        # Two leases, and resends, on a slow machine too: nothing waited for the visibility timeout of an hour.
        assert after_s < 300


@pytest.mark.parametrize("seed", [20])
def test_200_jobs_under_10_sigkills_on_redis(tmp_path: Path, seed: int) -> None:
    storm("redis", tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_more_storms_on_redis(tmp_path: Path, seed: int) -> None:
    storm("redis", tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 5])
def test_200_jobs_under_10_sigkills_on_rabbitmq(tmp_path: Path, seed: int) -> None:
    storm("rabbitmq", tmp_path, seed)
