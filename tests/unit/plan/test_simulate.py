"""Virtual time against schedules whose ends are known."""

import pytest

from mpilayer.plan.simulate import Seat, Simulation
from mpilayer.train import schedule
from mpilayer.train.plans import AsyncPlan, TablePlan

EPOCHS, EXTRA = (5, 4, 6), (0, 1, 1)
COSTS = (3.0, 2.0, 0.5)
APART = [Seat(range(i, i + 1), 1, 0) for i in range(3)]


def run(plan, seats=APART, costs=COSTS, message=0.0, slower=lambda n: 1.0):
    times = (lambda i, _: costs[i]), (lambda _: message), slower
    return Simulation(plan, seats, *times).run()


@pytest.mark.parametrize("costs", [COSTS, COSTS[::-1], (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("name", ["greedy", "lockstep", "lag 2"])
def test_one_team_a_layer_ends_when_the_table_says(name, costs):
    table = schedule.lockstep(EPOCHS, EXTRA, 2 if name == "lag 2" else 0)
    if name == "greedy":
        table = schedule.greedy(EPOCHS, EXTRA)
    found = run(TablePlan(table, streamed=True), costs=costs)
    # Buffers may hold a fast layer up, but not the last one to end.
    assert found.seconds == pytest.approx(max(schedule.finish_times(table, costs)))
    assert found.epochs == table.epochs
    works = [n * cost for n, cost in zip(table.epochs, costs, strict=True)]
    assert found.busy == pytest.approx(works)


@pytest.mark.parametrize("n_cores", [1, 2, 3])
def test_asynchronous_layers_end_as_simulated(n_cores):
    table = schedule.simulate(EPOCHS, EXTRA, COSTS, n_cores)
    plan = AsyncPlan(EPOCHS, EXTRA, streamed=False)
    found = run(plan, slower=lambda n: max(1.0, n / n_cores))
    assert found.seconds == pytest.approx(COSTS[0] * max(table.virtual_end))
    assert found.epochs == table.epochs


def test_one_team_for_all_never_waits_and_a_message_takes_its_time():
    table = schedule.lockstep(EPOCHS, EXTRA)
    plan = TablePlan(table, streamed=True)
    together = run(plan, [Seat(range(3), 2, 0)], message=100.0)
    work = sum(n * cost for n, cost in zip(table.epochs, COSTS, strict=True))
    assert together.seconds == pytest.approx(work) == together.busy[0]
    greedy = TablePlan(schedule.greedy(EPOCHS, EXTRA), streamed=True)
    plain, late = run(greedy), run(greedy, message=7.0)
    assert late.seconds == pytest.approx(plain.seconds + 2 * 7.0)


def test_company_slows_only_its_own_host():
    table = schedule.lockstep((4, 4), (0, 0))
    plan, slower = TablePlan(table, streamed=True), lambda n: 1.0 if n < 2 else 2.0
    near = [Seat(range(i, i + 1), 1, 0) for i in range(2)]
    far = [Seat(range(i, i + 1), 1, i) for i in range(2)]
    found = (run(plan, seats, (1.0, 1.0), slower=slower) for seats in (near, far))
    ends = [timeline.seconds for timeline in found]
    # The first and the last epoch have no company; the three between have.
    assert ends == pytest.approx([1 + 3 * 2 + 1, 5])
