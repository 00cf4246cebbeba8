"""One export from start to end: a model with its card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cai.composition import hardware_node
from cai.contracts.preferences import PMFolder
from cai.export.card import assistant_card, preference_card
from cai.export.figures import found_in
from cai.export.folder import appearing, check_free
from cai.export.hub import Repository, check_findable
from cai.export.lineage import trace
from cai.export.models import BASE, SHIPPED, Form, write_model
from cai.export.systems import System, find_system
from cai.files import write_text
from cai.lm.language_model import LanguageModel
from cai.lm.usage import scoring_code

CARD = "README.md"


@dataclass(frozen=True)
class Wanted:
    """What is taken away, and where to.

    Attributes:
        run: The folder of a run or of a result.
        to: The folder to write.
        repository: Also uploaded there, if given.
    """

    run: Path
    to: Path
    repository: Repository | None = None


def take_model(wanted: Wanted, name: str, form: Form) -> None:
    """Write a model as a folder of its own.

    Raises:
        UserError: If it is not there, or can't be had in this form.
    """
    check_free(wanted.to)
    lineage = trace(wanted.run)
    system = find_system(lineage, name)
    if wanted.repository is not None:
        check_findable(system, form)
    hardware = hardware_node("cpu")
    with appearing(wanted.to) as folder:
        model = write_model(system, form, hardware, folder, wanted.to)
        own = trace(system.result.path)
        card = (
            preference_card(system, form, own, _scoring(system, form, model))
            if system.scores
            else assistant_card(system, form, own, found_in(lineage))
        )
        write_text(folder / CARD, card)


def _scoring(system: System, form: Form, model: LanguageModel) -> str:
    """Write code that loads a preference model and scores a reply."""
    code = scoring_code(model, form.merged, PMFolder(system.folder).metrics.read().mean)
    if form.merged or system.base.source not in SHIPPED:
        return code
    return f'BASE = f"{{THIS_FOLDER}}/{BASE}"\n{code}'
