"""The gate's rules: section `gate` of params.yaml, one entry per metric.

Metrics have their names in `dvc metrics diff`: `accuracy`, or `recall.8` for a nested one.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from stages.base.params import Params, Real

SECTION = "gate"
# The metrics that follow from the predictions, so that a paired test applies; as does any recall.
TESTED = (
    "accuracy",
    "balanced_accuracy",
    "cross_entropy",
    "macro_f1",
    "expected_calibration_error",
)
RECALL = "recall."
# Metrics have six decimals; whatever differs beyond the ninth is float error.
DECIMALS = 9


class Rule(Params):
    """The requirements of one metric, in its own unit.

    tolerance is None where the file says `auto`: the standard error of the metric at the base.
    """

    better: Literal["higher", "lower"] = Field(description="higher or lower: the good direction")
    tolerance: Real | None = Field(
        ge=0,
        description="change for the worse to ignore, 0 or more; auto: the metric's standard error",
    )
    floor: Real | None = Field(
        None, description="lowest value allowed, whatever the base has; where higher is better"
    )
    ceiling: Real | None = Field(
        None, description="highest value allowed, whatever the base has; where lower is better"
    )
    alpha: Real | None = Field(
        gt=0,
        lt=1,
        description="p-value up to which a difference counts as real, above 0 and below 1;"
        " null: only the tolerance decides",
    )
    accepted: Real | None = Field(
        None, description="value to which the change that adds this line may worsen the metric"
    )
    accepted_because: str | None = Field(None, min_length=1, description="the reason to accept it")

    @field_validator("tolerance", mode="wrap")
    @classmethod
    def _auto(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        if value is None:
            raise ValueError("0 or more, or auto")
        return None if value == "auto" else handler(value)

    @model_validator(mode="after")
    def _limits_and_reasons(self) -> Self:
        allowed, other = ("floor", "ceiling") if self.better == "higher" else ("ceiling", "floor")
        if getattr(self, other) is not None:
            raise ValueError(f"found a {other}; expected a {allowed} where {self.better} is better")
        if self.tolerance is None and self.alpha is None:
            raise ValueError("tolerance: auto needs an alpha: a standard error alone is no test")
        if (self.accepted is None) != (self.accepted_because is None):
            raise ValueError("expected both accepted and accepted_because, or neither")
        if self.accepted is not None and self.is_beyond_limit(self.accepted):
            raise ValueError(
                f"accepted: found {self.accepted:g}; expected no value beyond the {allowed}"
                f" {self.limit:g}"
            )
        return self

    @property
    def limit(self) -> float | None:
        """The floor, or the ceiling where lower is better; None without one."""
        return self.floor if self.better == "higher" else self.ceiling

    def worse_by(self, base: float, now: float) -> float:
        """By how much `now` is worse than `base`; negative if it is better."""
        return round(base - now if self.better == "higher" else now - base, DECIMALS)

    def is_beyond_limit(self, value: float) -> bool:
        """Whether `value` is below the floor, or above the ceiling."""
        return self.limit is not None and self.worse_by(self.limit, value) > 0


class Rules(Params):
    """Section `gate` of params.yaml: a `Rule` for each metric, by name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Rule]

    @property
    def by_metric(self) -> Mapping[str, Rule]:
        """The rules by metric, in the order of the file."""
        return self.__pydantic_extra__

    @model_validator(mode="after")
    def _tests_that_exist(self) -> Self:
        if not self.by_metric:
            raise ValueError(
                "found no rules; expected an entry for each metric that must not regress"
            )
        for metric, rule in self.by_metric.items():
            if rule.alpha is not None and metric not in TESTED and not metric.startswith(RECALL):
                raise ValueError(
                    f"{metric}.alpha: found {rule.alpha:g}; expected null: there is no test for it,"
                    f" only for {', '.join(TESTED)} and {RECALL}CLASS"
                )
        return self

    @classmethod
    def _problem(cls, section: str, detail: ErrorDetails) -> str:
        if not detail["loc"]:
            return super()._problem(section, detail)
        metric, *within = detail["loc"]
        if detail["type"] == "model_type" and not within:
            keys = ", ".join(Rule.model_fields)
            return f"{section}.{metric}: found {detail['input']!r}; expected a rule: {keys}"
        return Rule._problem(f"{section}.{metric}", {**detail, "loc": tuple(within)})
