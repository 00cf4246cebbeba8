"""The paper's released tests: every system answers them, and the preference models score them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cai.artifacts import write_json
from cai.config import Config, PaperMode
from cai.data.paper_evals import Item, PaperTest, read_paper_tests
from cai.dialogue import Conversation
from cai.errors import UserError
from cai.evaluation.paper_measures import measure_results
from cai.evaluation.systems import System
from cai.labelling.exam import ChainExam, DirectExam, Examinee, draw_shots
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree
from cai.sampling.shards import Row, make_rows
from cai.seeds import seed_of
from cai.training.rollouts import RewardModel

CHAINS = 5
ANSWERS = "paper_answers.jsonl"


class Job(NamedTuple):
    """One question to one system in one way; both modes of chains share the same chains."""

    player: str
    mode: PaperMode
    item: Item


class PaperTests:
    """Puts the chosen questions to all players, shard by shard, and measures their answers."""

    def __init__(
        self,
        config: Config,
        model: LanguageModel,
        systems: Sequence[System],
        judges: Mapping[str, RewardModel],
    ) -> None:
        """Read the files that ``evaluate.paper_tests`` holds.

        Args:
            config: Gives folder, modes and how many questions.
            model: Has the adapters of all systems and judges.
            systems: Answer in words.
            judges: Preference models by name.

        Raises:
            UserError: If there is nothing to read.
        """
        assert config.evaluate is not None
        assert config.evaluate.paper_tests is not None
        self.config, self.settings, self.model = config, config.evaluate, model
        # Best-of-N would answer as the system that it samples from.
        self.systems = {system.name: system for system in systems if system.best_of == 1}
        self.judges = judges
        self.files = read_paper_tests(Path(config.evaluate.paper_tests))
        self.chosen = {
            file.test: choose(file.items, self.settings.paper_rows, config.seed)
            for file in self.files
        }
        self.shots = {file.test: draw_shots(file.items, config.seed) for file in self.files}

    def run(self, out: Path) -> dict[str, float]:
        """Write all answers to ``paper_answers.jsonl`` and their worth to ``paper_tests.json``.

        Returns:
            The accuracies, for the tracker.
        """
        jobs = self.jobs()

        def make(part: range) -> list[Row]:
            return self.answer([jobs[i] for i in part])

        answers = make_rows(out / ANSWERS, len(jobs), self.settings.batch_size, make, "paper tests")
        asked = {item.id: item for items in self.chosen.values() for item in items}
        found: dict[str, Any] = {
            "tests": [
                {
                    "test": file.test.value,
                    "file": file.path.name,
                    "rows": len(file.items),
                    "asked": len(self.chosen[file.test]),
                    "unreadable_rows": file.faults,
                }
                for file in self.files
            ],
            "results": measure_results(asked, answers, self.settings),
        }
        write_json(out / "paper_tests.json", found)
        return {
            f"paper/{result['test']}/{result['system']}/{result['mode']}": result["accuracy"][
                "value"
            ]
            for result in found["results"]
            if result["accuracy"] is not None
        }

    def jobs(self) -> list[Job]:
        """List what is asked of whom, so ordered that a shard holds questions of one kind."""
        modes = self.settings.paper_modes
        direct = (PaperMode.zero_shot, PaperMode.few_shot)
        ways: list[PaperMode] = [mode for mode in direct if mode in modes]
        if PaperMode.cot in modes or PaperMode.cot_5 in modes:
            ways.append(PaperMode.cot)
        scored = self.judges if PaperMode.pm in modes else ()
        jobs = []
        for file in self.files:
            items = self.chosen[file.test]
            jobs += [
                Job(name, way, item) for name in self.systems for way in ways for item in items
            ]
            allowed = [item for item in items if item.talks]
            jobs += [Job(name, PaperMode.pm, item) for name in scored for item in allowed]
        return jobs

    def answer(self, jobs: Sequence[Job]) -> list[Row]:
        """Do some jobs and return a row for each, in their order."""
        kinds: dict[tuple[str, PaperMode, PaperTest], list[int]] = {}
        for n, job in enumerate(jobs):
            kinds.setdefault((job.player, job.mode, job.item.test), []).append(n)
        rows: list[Row] = [{}] * len(jobs)
        for (player, mode, test), numbers in kinds.items():
            items = [jobs[n].item for n in numbers]
            made = (
                self._scores(player, items)
                if mode is PaperMode.pm
                else self._answers(player, mode, test, items)
            )
            for n, values in zip(numbers, made, strict=True):
                about = {"test": test.value, "system": player, "mode": mode.value}
                rows[n] = {**about, "id": jobs[n].item.id, **values}
        return rows

    def _answers(
        self, player: str, mode: PaperMode, test: PaperTest, items: Sequence[Item]
    ) -> list[Row]:
        adapter = self.systems[player].adapter
        examinee: Examinee
        if mode is PaperMode.cot:
            chains = CHAINS if PaperMode.cot_5 in self.settings.paper_modes else 1
            plan = (chains, self.config.seed)
            examinee = ChainExam(self.model, adapter, self.settings, plan)
        else:
            shots = self.shots[test] if mode is PaperMode.few_shot else None
            examinee = DirectExam(self.model, adapter, shots)
        return [{"chains": a.chains, "fits": a.fits} for a in examinee.answers(items)]

    def _scores(self, player: str, items: Sequence[Item]) -> list[Row]:
        """Score the dialogues of each question; none where one does not fit the context."""
        trees, owners = [], []
        for n, item in enumerate(items):
            fitting = [tree for talk in item.talks if (tree := _tree(self.model, talk))]
            if len(fitting) == len(item.talks):
                trees += fitting
                owners += [n] * len(fitting)
        tokens = self.config.hardware.micro_tokens
        rows: list[Row] = [{"scores": [], "fits": False} for _ in items]
        if not trees:
            return rows
        scores = self.judges[player].score(trees, tokens).tolist()
        for n, score in zip(owners, scores, strict=True):
            rows[n] = {"scores": [*rows[n]["scores"], score], "fits": True}
        return rows


def choose(items: Sequence[Item], n: int | None, seed: int) -> list[Item]:
    """Draw ``n`` questions, or all of them, and leave them in order."""
    drawn = sorted(items, key=lambda item: seed_of(seed, "paper rows", item.id))[:n]
    kept = {item.id for item in drawn}
    return [item for item in items if item.id in kept]


def _tree(model: LanguageModel, talk: Conversation) -> Tree | None:
    """Encode a dialogue for a preference model; None if it does not fit the context."""
    try:
        tree = Tree(model.chat.prompt(talk[:-1]), [model.chat.response(talk[-1].text)])
    except UserError:  # the one thing that it refuses is a prompt beyond the context
        return None
    return tree if tree.length <= model.chat.context else None
