"""What all training modules share: the weights that are trained, their history, one kind of step.

The frozen base stays out of the module registry, so that no checkpoint holds it and no strategy
looks for its gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn

from cai import parallel
from cai.config import OptimizerConfig
from cai.errors import UserError
from cai.training.data import Batch, StepData
from cai.training.optimizers import make_optimizer

Numbers = Mapping[str, float]
"""What is reported of one step, by name."""
SHOWN = frozenset({"loss", "score", "kl"})
"""What the progress bar says."""


class TrainingModule(L.LightningModule):
    """Holds what training changes, and nothing else.

    Attributes:
        history: The numbers of every step so far.
        data: What it learns from.
    """

    def __init__(self, trained: Mapping[str, Sequence[nn.Parameter]], data: StepData) -> None:
        """Register the trained weights by name."""
        super().__init__()
        self.history: list[dict[str, float]] = []
        self.data = data
        self._trained = trained
        for name, parameters in trained.items():
            self.register_module(f"trained_{name}", nn.ParameterList(parameters))

    @property
    def n_steps(self) -> int:
        """Return the number of steps in all; one of PPO's is an iteration."""
        return self.data.n_steps

    def report(self, values: Numbers, step: int) -> None:
        """Keep the numbers of a step and hand them to the loggers, the bar and the callbacks."""
        self.history.append({"step": step, **values})
        for logger in self.loggers:
            logger.log_metrics(dict(values), step)
        shown = {name: value for name, value in values.items() if name in SHOWN}
        self.log_dict(shown, prog_bar=True, logger=False, batch_size=1)

    def check_finite(self) -> None:
        """Look for weights that are no numbers any more; a loss shows those of the step before.

        Raises:
            UserError: Before anything is written over the last good checkpoint.
        """
        for name, parameters in self._trained.items():
            if not all(bool(torch.isfinite(weights).all()) for weights in parameters):
                raise UserError(
                    f"the weights of {name} are not finite after step {len(self.history) - 1}: "
                    "lower optimizer.lr or optimizer.weight_decay of this stage; the last good "
                    "checkpoint is kept"
                )

    def on_train_end(self) -> None:
        """Hand on no weights that are not finite."""
        self.check_finite()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history with the weights."""
        self.check_finite()
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history back."""
        self.history = checkpoint["history"]


class SupervisedModule(TrainingModule):
    """One loss, one optimizer: the micro-batches of a step add up to the loss of all its records.

    Attributes:
        totals: Names of the sums that ``loss`` returns beside the loss.
    """

    totals: ClassVar[tuple[str, ...]] = ("loss",)

    def __init__(
        self,
        trained: Mapping[str, Sequence[nn.Parameter]],
        data: StepData,
        optimizer: OptimizerConfig,
    ) -> None:
        """Register what is trained.

        Args:
            trained: Weights by name.
            data: What it learns from.
            optimizer: Settings of AdamW.
        """
        super().__init__(trained, data)
        self._optimizer = optimizer
        self._sums: Tensor | None = None
        self._units = 0

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return a micro-batch's part of the step's loss, and its part of ``totals``."""
        raise NotImplementedError

    def summary(self, totals: dict[str, float], norm: float, units: int) -> dict[str, float]:
        """Return the numbers of a step from the sums over all its micro-batches."""
        return {"loss": totals["loss"], "grad_norm": norm}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss, weighted so that Lightning's averages give the sum over a step.

        Lightning divides by the micro-batches of a step, and its strategies by the processes.
        """
        loss, sums = self.loss(batch)
        sums = sums * batch.counts
        self._sums = sums if self._sums is None else self._sums + sums
        self._units = batch.total
        return loss * (batch.counts * self.trainer.accumulate_grad_batches * parallel.world_size())

    def configure_gradient_clipping(self, optimizer: Any, *rest: Any, **options: Any) -> None:
        """Clip the gradients of a step and report its numbers.

        Raises:
            UserError: If they are not finite; the last checkpoint is from before.
        """
        assert self._sums is not None
        norm = clip(parameters_of(optimizer), self._optimizer.max_grad_norm)
        sums = parallel.all_reduce(self._sums.tolist())
        self._sums = None
        totals = dict(zip(self.totals, sums, strict=True))
        step = len(self.history)
        if not all(map(math.isfinite, (*sums, norm))):
            raise UserError(
                f"the loss at step {step} is not finite (loss {totals['loss']}, gradient norm "
                f"{norm}): lower optimizer.lr of this stage; the last good checkpoint is kept"
            )
        self.report(self.summary(totals, norm, self._units), step)

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its schedule."""
        parameters = [p for part in self._trained.values() for p in part]
        return make_optimizer(parameters, self._optimizer, self.n_steps)


def parameters_of(optimizer: Any) -> list[nn.Parameter]:
    """Return what an optimizer changes."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def clip(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Scale gradients so that their norm is at most ``max_norm``; return what it was."""
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    if hasattr(norm, "full_tensor"):  # of shards, and each process knows its own part
        norm = norm.full_tensor()
    return float(norm)


def sums_of(*values: Tensor | float) -> Tensor:
    """Return numbers as one tensor in double precision, on the processor."""
    return torch.tensor([float(value) for value in values], dtype=torch.float64)
