"""The paper's released tests: every system answers them, and the preference models score them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cai.config import PaperMode
from cai.contracts.policies import Evaluation
from cai.data.paper_evals import Item, PaperTest, read_paper_tests
from cai.dialogue import Conversation
from cai.errors import UserError
from cai.evaluation.paper_measures import measure_results
from cai.evaluation.systems import Context
from cai.labelling.exam import ChainExam, DirectExam, Examinee, draw_shots
from cai.lm.load import LanguageModel
from cai.lm.packing import Tree
from cai.results.systems import PaperAnswer, PaperFile
from cai.results.systems import PaperTests as PaperTestResults
from cai.sampling.shards import make_rows
from cai.seeds import seed_of
from cai.training.rollouts import RewardModel

CHAINS = 5


class Question(NamedTuple):
    """One question to one system in one way; both modes of chains share the same chains."""

    player: str
    mode: PaperMode
    item: Item


class PaperTests:
    """Puts the chosen questions to all players, shard by shard, and measures their answers."""

    def __init__(self, context: Context, folder: Path, judges: Mapping[str, RewardModel]) -> None:
        """Read the files that ``evaluate.paper_tests.folder`` holds.

        Args:
            context: Gives modes, how many questions, and the systems that answer in words.
            folder: Where the files are.
            judges: Preference models by name.

        Raises:
            UserError: If there is nothing to read.
        """
        self.context, self.settings, self.model = context, context.evaluate, context.model
        # Best-of-N would answer as the system that it samples from.
        self.systems = {s.name: s for s in context.systems if s.best_of == 1}
        self.judges = judges
        self.files = read_paper_tests(folder, context.settings.data.bad_rows)
        rows, seed = self.settings.paper_tests.rows, context.seed
        self.chosen = {file.test: choose(file.items, rows, seed) for file in self.files}
        self.shots = {file.test: draw_shots(file.items, seed) for file in self.files}

    def run(self, out: Evaluation) -> dict[str, float]:
        """Write all answers and their worth.

        Returns:
            The accuracies, for the tracker.
        """
        jobs = self.jobs()

        def make(part: range) -> list[PaperAnswer]:
            return self.answer([jobs[i] for i in part])

        size = self.settings.batch_size
        answers = make_rows(out.paper_answers, len(jobs), size, make, "paper tests")
        asked = {item.id: item for items in self.chosen.values() for item in items}
        files = [
            PaperFile(
                test=file.test.value,
                file=file.path.name,
                rows=len(file.items),
                asked=len(self.chosen[file.test]),
                unreadable_rows=file.faults,
            )
            for file in self.files
        ]
        results = measure_results(asked, answers, self.settings)
        out.paper_tests.write(PaperTestResults(files, results))
        return {
            f"paper/{r.test}/{r.system}/{r.mode}": r.accuracy.value
            for r in results
            if r.accuracy is not None and r.accuracy.value is not None
        }

    def jobs(self) -> list[Question]:
        """List what is asked of whom, so ordered that a shard holds questions of one kind."""
        modes = self.settings.paper_tests.modes
        direct = (PaperMode.zero_shot, PaperMode.few_shot)
        ways: list[PaperMode] = [mode for mode in direct if mode in modes]
        if PaperMode.cot in modes or PaperMode.cot_5 in modes:
            ways.append(PaperMode.cot)
        scored = self.judges if PaperMode.pm in modes else ()
        jobs = []
        for file in self.files:
            items = self.chosen[file.test]
            jobs += [
                Question(name, way, item) for name in self.systems for way in ways for item in items
            ]
            allowed = [item for item in items if item.talks]
            jobs += [Question(name, PaperMode.pm, item) for name in scored for item in allowed]
        return jobs

    def answer(self, jobs: Sequence[Question]) -> list[PaperAnswer]:
        """Do some jobs and return a row for each, in their order."""
        kinds: dict[tuple[str, PaperMode, PaperTest], list[int]] = {}
        for n, job in enumerate(jobs):
            kinds.setdefault((job.player, job.mode, job.item.test), []).append(n)
        rows: dict[int, PaperAnswer] = {}
        for (player, mode, test), numbers in kinds.items():
            items = [jobs[n].item for n in numbers]
            answer = self._scores if mode is PaperMode.pm else self._answers
            rows |= zip(numbers, answer(player, mode, test, items), strict=True)
        return [rows[n] for n in range(len(jobs))]

    def _answers(
        self, player: str, mode: PaperMode, test: PaperTest, items: Sequence[Item]
    ) -> list[PaperAnswer]:
        adapter = self.systems[player].adapter
        examinee: Examinee
        if mode is PaperMode.cot:
            chains = CHAINS if PaperMode.cot_5 in self.settings.paper_tests.modes else 1
            plan = (chains, self.context.seed)
            examinee = ChainExam(self.model, adapter, self.settings, plan)
        else:
            shots = self.shots[test] if mode is PaperMode.few_shot else None
            examinee = DirectExam(self.model, adapter, shots)
        return [
            PaperAnswer(
                test.value, player, mode.value, item.id, chains=answer.chains, fits=answer.fits
            )
            for item, answer in zip(items, examinee.answers(items), strict=True)
        ]

    def _scores(
        self, player: str, mode: PaperMode, test: PaperTest, items: Sequence[Item]
    ) -> list[PaperAnswer]:
        """Score the dialogues of each question; none where one does not fit the context."""
        encoded = [[_tree(self.model, talk) for talk in item.talks] for item in items]
        fitting = [[tree for tree in trees if tree] if all(trees) else [] for trees in encoded]
        flat = [tree for trees in fitting for tree in trees]
        tokens = self.context.micro_tokens
        scores = iter(self.judges[player].score(flat, tokens).tolist() if flat else [])
        return [
            PaperAnswer(
                test.value,
                player,
                mode.value,
                item.id,
                scores=[next(scores) for _ in trees],
                fits=bool(trees),
            )
            for item, trees in zip(items, fitting, strict=True)
        ]


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
