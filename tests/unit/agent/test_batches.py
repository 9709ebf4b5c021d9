"""Work for many at once: who waits for whom, and what a failure or an end of one means for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from warrend.batches import Batches


class Worker:
    """Takes a turn for each batch, until it is let go on."""

    def __init__(self, most: int = 500) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        self.fail: Exception | None = None
        self.of = Batches(self._work, most)

    async def _work(self, batch: list[int]) -> int:
        self.batches.append(batch)
        await self.go.wait()
        if self.fail:
            raise self.fail
        return len(batch)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_one_alone_waits_for_nobody_and_the_rest_go_together() -> None:
    async def work() -> None:
        worker = Worker()
        tasks = [asyncio.create_task(worker.of(number)) for number in range(10)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        late = [asyncio.create_task(worker.of(number)) for number in range(10, 14)]
        await asyncio.sleep(0)
        worker.go.set()
        assert await asyncio.gather(*tasks) == [10] * 10
        assert await asyncio.gather(*late) == [4] * 4
        assert worker.batches == [list(range(10)), list(range(10, 14))]
        assert await worker.of(99) == 1

    run(work)


def test_a_batch_has_an_end() -> None:
    async def work() -> None:
        worker = Worker(most=3)
        worker.go.set()
        await asyncio.gather(*(worker.of(number) for number in range(8)))
        assert worker.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]

    run(work)


def test_a_failure_is_everybodys_and_the_next_batch_goes_on() -> None:
    async def work() -> None:
        worker = Worker()
        worker.fail = OSError("no")
        worker.go.set()
        done = await asyncio.gather(worker.of(1), worker.of(2), return_exceptions=True)
        assert [type(each) for each in done] == [OSError, OSError]
        worker.fail = None
        assert await worker.of(3) == 1

    run(work)


def test_an_end_of_the_work_itself_leaves_nobody_waiting() -> None:
    async def work() -> None:
        async def ended(_batch: list[int]) -> None:
            await asyncio.sleep(0)
            raise asyncio.CancelledError

        of = Batches(ended)
        done = await asyncio.gather(of(1), asyncio.create_task(of(2)), return_exceptions=True)
        assert [type(each) for each in done] == [asyncio.CancelledError] * 2

    run(work)


def test_who_does_not_wait_any_more_does_not_end_the_work_of_others() -> None:
    async def work() -> None:
        worker = Worker()
        first, second = (asyncio.create_task(worker.of(number)) for number in (1, 2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        worker.go.set()
        assert await second == 2
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await worker.of(3) == 1

    run(work)
