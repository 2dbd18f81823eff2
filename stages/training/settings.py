"""The section `train` of params.yaml."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.base.params import Integer, Params, Real, Seed


class TrainParams(Params):
    """How the model is fitted."""

    optimizer: Literal["sgd", "adam", "adamw"] = Field(description="sgd, adam or adamw")
    learning_rate: Real = Field(gt=0, description="size of the first step, above 0")
    momentum: Real = Field(
        ge=0, lt=1, description="share of past gradients kept, in [0, 1); Adam's beta1"
    )
    nesterov: bool = Field(description="true or false: Nesterov's momentum; only for sgd")
    weight_decay: Real = Field(
        ge=0, description="added to the gradient per unit of weight (adamw: taken off the weight)"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        description="constant, linear or cosine: how the learning rate falls"
    )
    batch_size: Integer = Field(ge=1, description="images per iteration, 1 or more")
    iterations: Integer = Field(ge=1, description="number of steps, 1 or more")
    eval_every: Integer = Field(ge=1, description="iterations between rows of history, 1 or more")
    seed: Seed = Field(description="decides the order of the images, 0 to 2**63 - 1")

    @model_validator(mode="after")
    def _nesterov_is_for_sgd(self) -> Self:
        if self.nesterov and self.optimizer != "sgd":
            raise ValueError(
                f"nesterov: found true with optimizer {self.optimizer!r};"
                " expected false, or optimizer 'sgd'"
            )
        return self
