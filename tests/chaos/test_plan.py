"""Plans of kills: a pure function of the seed, in the order of a run, over every phase."""

from __future__ import annotations

from tests.chaos.plan import LASTS, ONCE, VICTIMS, draw_plan
from tests.distill.prepared import STAGES

SEEDS = range(60)
KILLS = 12


def test_a_seed_says_everything() -> None:
    assert draw_plan(7, KILLS) == draw_plan(7, KILLS)
    assert str(draw_plan(7, KILLS)) != str(draw_plan(8, KILLS))
    assert "\n" not in str(draw_plan(7, KILLS))


def test_kills_come_in_the_order_of_a_run_and_within_their_phases() -> None:
    for seed in SEEDS:
        plan = draw_plan(seed, KILLS)
        assert len(plan.kills) == KILLS
        assert [k.position for k in plan.kills] == sorted(k.position for k in plan.kills)
        for kill in plan.kills:
            assert 0 <= kill.delay <= LASTS[kill.phase]
            assert kill.victim in VICTIMS[kill.phase]
            assert kill.stage in ([0] if kill.phase in ONCE else range(1, STAGES + 1))
            assert plan.reference_workers or kill.victim != "reference worker"


def test_every_victim_of_every_phase_is_drawn() -> None:
    kills = [kill for seed in SEEDS for kill in draw_plan(seed, KILLS).kills]
    drawn = {(kill.phase, kill.victim) for kill in kills}
    assert drawn == {(phase, victim) for phase, known in VICTIMS.items() for victim in known}
