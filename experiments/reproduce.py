"""The four published A/B tests, from calls to the table: ``python -m experiments.reproduce``.

    python -m experiments.reproduce --quick     # the configurations that come with the project
    python -m experiments.reproduce --shipped   # the same on ten times the calls
    python -m experiments.reproduce             # makes them first: hours

The full form collects calls, fits the models and the rules on them, tunes the plans on train and
validation networks, and then tests them; `--quick` tests what comes with the project, on fewer
calls. The test itself is the same: a server is started, calls fetch their configuration from it
when they are set up, models say in the call what to do, and the same calls are played by GCC alone
(the control), by the placebo, and by hand-tuned rules in place of the models.

Stopped with Ctrl-C, it goes on where it was when it is started again with the same --out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bwe_env.errors import ConfigError, unknown_name
from experiments.ab_arms import Arm, BaselineArm
from experiments.ab_blocks import Experiment, open_directory
from experiments.ab_test import play
from experiments.artifact_store import Store
from experiments.cli import run_command
from experiments.executor import Executor, ExecutorName, make_executor
from experiments.plan_trials import STUDIES
from experiments.published_experiments import CALL, experiment_of
from experiments.reproduce_build import BuildSizes, build
from experiments.reproduce_delivery import SHIPPED, Server, fill_store, served
from experiments.reproduce_report import CONTROL, PLACEBO, RULES, TREATMENT, report_all
from experiments.targeted_arms import AlwaysArm, Delivery, PlaceboArm, TargetedArm

#: Calls of each arm, by plan. Of the full form so many that the guard of drops can be decided where
#: one call in 70 drops in one arm alone; of the quick one so many that it stays below 10 minutes on
#: two cores. Ours.
FULL_CALLS = {"congestion": 3000, "random-loss": 1600, "cellular": 5000}
QUICK_CALLS = {"congestion": 448, "random-loss": 320, "cellular": 512}


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Repeat the four published A/B tests."""

    quick: bool = False
    """test the configurations that come with the project, on fewer calls; below 10 minutes"""
    shipped: bool = False
    """test the configurations that come with the project, on all calls"""
    plans: tuple[str, ...] = tuple(STUDIES)
    """which: "cellular" makes two of the four tests"""
    calls: int | None = None
    """of each arm; by default as many as each test needs"""
    split: Literal["test", "validation"] = "test"
    """networks; validation ones for a look before test ones are played, or as the reference of
    experiments.monitor"""
    out: Path | None = None
    """folder of everything; one that exists is gone on with. By default one under runs for each of
    --quick, --shipped and the full form: none of them goes on with the calls of another"""
    small: bool = False
    """make the configurations from few calls and trials, to see that it works: no result"""
    executor: ExecutorName = "local"
    """processes of this machine, or a Ray cluster"""
    workers: int = 0
    """processes, 0 for one per processor; results do not depend on it"""

    def __post_init__(self) -> None:
        for name in self.plans:
            if name not in STUDIES:
                raise unknown_name("plan of --plans", name, STUDIES)
        if self.calls is not None and self.calls < 2:
            raise ConfigError(f"--calls {self.calls} must be at least 2.")

    @property
    def folder(self) -> Path:
        """Where everything is."""
        form = "-quick" if self.quick else "-shipped" if self.shipped else ""
        return self.out or Path(f"runs/reproduce{form}")

    def num_calls(self, plan: str) -> int:
        """Calls of each arm."""
        return self.calls or (QUICK_CALLS if self.quick else FULL_CALLS)[plan]


def reproduce(config: ReproduceConfig) -> int:
    """Run the command; returns its exit code."""
    started_s = time.monotonic()
    config.folder.mkdir(parents=True, exist_ok=True)
    delivered = SHIPPED
    if not (config.quick or config.shipped):
        sizes = BuildSizes.small() if config.small else BuildSizes()
        delivered = build(config.folder / "build", sizes, config.executor, config.workers)
    store = Store(config.folder / "store")
    digests = fill_store(store, delivered, config.plans)
    executor = make_executor(config.executor, workers=config.workers)
    try:
        with served(store.root, log=config.folder / "server.log") as server:
            for plan in config.plans:
                print(f"{plan}: configuration {digests[plan][:12]} from {server.url}", flush=True)
                _test(config, plan, server, delivered, executor)
    finally:
        executor.close()
    report_all(config.folder, config.plans, split=config.split)
    print(f"{time.monotonic() - started_s:.0f} s in all; the tables are in {config.folder}")
    return 0


def _test(
    config: ReproduceConfig, plan: str, server: Server, delivered: Path, executor: Executor
) -> None:
    """Play the calls of one plan's test, or what is missing of them."""
    folder = config.folder / plan
    name = STUDIES[plan].experiments[0]
    experiment = Experiment(
        arms=arms(plan, server.url, config.folder, delivered),
        networks=experiment_of(name).networks(config.split, config.num_calls(plan)),
        seeds=(0,),
        call=CALL,
    )
    open_directory(folder, experiment)
    play(experiment, folder, executor)


def arms(plan: str, url: str, out: Path, delivered: Path) -> dict[str, Arm]:
    """The arms of a plan's test, by role.

    Args:
        url: of the server that delivers.
        out: folder of the caches, and of what the models said.
        delivered: what a call uses if neither the server nor its cache has anything.
    """
    delivery = Delivery(url=url, reference=plan, cache=out / "cache")
    treatment = TargetedArm(
        name="targeted by models",
        folder=delivered / plan,
        delivery=delivery,
        answers=out / f"{plan}-answers",
    )
    return {
        CONTROL: BaselineArm(baseline="gcc"),
        TREATMENT: treatment,
        RULES: TargetedArm(
            name="targeted by rules", folder=delivered / plan, delivery=delivery, driver="rules"
        ),
        **_further_arms(plan, delivered / plan),
        PLACEBO: PlaceboArm(name="placebo", treatment=treatment),
    }


def _further_arms(plan: str, folder: Path) -> dict[str, Arm]:
    """Arms that show what there is to gain, and what no knowledge of the network would."""
    if plan == "congestion":
        return {"always": AlwaysArm(name="alarm always on", folder=folder, alarm="congestion")}
    if plan == "random-loss":
        return {
            "always": AlwaysArm(name="alarm always on", folder=folder, alarm="random_loss"),
            "classic": BaselineArm(baseline="gcc-classic-loss"),
            "oracle": BaselineArm(baseline="oracle"),
        }
    return {}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.reproduce``."""
    return run_command(reproduce, ReproduceConfig, module="experiments.reproduce", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
