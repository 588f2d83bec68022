"""What machines cost, and which job has which: the deployment's price table, a TOML file.

Belongs here: the file's shape, and asking it. Does not belong here: what a job used (`attempts`), or sums.

A job is charged for its machine from its start to its end, used or not: so does whoever rents it out. An
example is in `docs/how-to/know-what-it-costs.md`.
"""

from __future__ import annotations

import tomllib
from typing import Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from airloop.errors import SettingsError
from airloop.settings import PREFIX, Settings
from airloop.use_cases.part import SpecPart

Market = Literal["on_demand", "spot"]
HOUR_SECONDS: Final = 3600


class Machine(SpecPart):
    """A machine as it is rented."""

    vcpus: float = Field(gt=0)
    memory_gib: float = Field(gt=0)
    accelerator: str | None = None
    accelerators: int = Field(0, ge=0)
    on_demand_per_hour: float = Field(ge=0)
    spot_per_hour: float | None = Field(None, ge=0)
    """None where it is not to be had that way."""
    billed_by: Literal["hour", "vcpu_hour"] = "hour"
    """What is counted: its time, or the processors that a job was billed for, as EMR Serverless does. The
    machine is then a worker, whose memory goes with its processors."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.accelerator is None) != (self.accelerators == 0):
            raise ValueError("accelerator and accelerators go together")
        return self

    def per_hour(self, market: Market) -> float | None:
        """Its price in `market`; None where it is not to be had there."""
        return self.on_demand_per_hour if market == "on_demand" else self.spot_per_hour


class Rented(SpecPart):
    """Machines of a kind."""

    machine: str
    market: Market = "on_demand"
    count: int = Field(1, ge=1)


class JobMachines(Rented):
    """What jobs run on."""

    modules: str = ""
    """The beginning of their modules' names, such as `airloop.training`; of several the longest counts."""


class ServingMachines(Rented):
    """What answers requests, day and night."""

    use_case: str
    program: str = "gateway"
    """For people: what runs there."""


class PriceTable(SpecPart):
    """What things cost in one currency."""

    currency: str = Field(min_length=1)
    machines: dict[str, Machine] = Field(min_length=1)
    jobs: tuple[JobMachines, ...] = Field(min_length=1)
    serving: tuple[ServingMachines, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        for rented in (*self.jobs, *self.serving):
            machine = self.machines.get(rented.machine)
            if machine is None:
                problems.append(f"there is no machine {rented.machine!r}")
            elif machine.per_hour(rented.market) is None:
                problems.append(f"machine {rented.machine!r} has no price as {rented.market}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def of_job(self, module: str) -> JobMachines | None:
        """What the job `module` runs on; None where the table does not say."""
        found = [entry for entry in self.jobs if module.startswith(entry.modules)]
        return max(found, key=lambda entry: len(entry.modules), default=None)

    def per_hour(self, rented: Rented) -> float:
        """What `rented` costs an hour, all of its machines together."""
        price = self.machines[rented.machine].per_hour(rented.market)
        assert price is not None  # checked above
        return price * rented.count

    def job_per_hour(self, module: str) -> float | None:
        """What the job `module` costs an hour; None where the table does not say."""
        rented = self.of_job(module)
        return None if rented is None else self.per_hour(rented)

    def serving_per_hour(self, use_case: str) -> float | None:
        """What answering requests for `use_case` costs an hour; None where the table does not say."""
        found = [self.per_hour(entry) for entry in self.serving if entry.use_case == use_case]
        return sum(found) if found else None


def load_prices(settings: Settings) -> PriceTable | None:
    """The deployment's price table; None where the setting names none.

    Raises `SettingsError` naming everything that is wrong with it.
    """
    path = settings.prices
    if path is None:
        return None
    try:
        return PriceTable(**tomllib.loads(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        found = str(error)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'table'}: {item['msg']}" for item in error.errors()
        )
    raise SettingsError(
        expected=f"a price table in {path} ({PREFIX}PRICES)",
        found=found,
        next_step="correct the file; docs/how-to/know-what-it-costs.md has an example",
    )


def prices_for_budget(settings: Settings, of: str) -> PriceTable:
    """The price table, for the budget of `of`; raises `SettingsError` as `load_prices`, and without one."""
    prices = load_prices(settings)
    if prices is None:
        raise SettingsError(
            expected=f"a price table ({PREFIX}PRICES) for the budget of {of}",
            found="none",
            next_step="name one, or take the budget out of the spec",
        )
    return prices
