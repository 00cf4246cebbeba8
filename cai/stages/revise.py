"""Replies to red-team prompts, criticised and revised round by round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from cai.config import ReviseConfig, RevisionPrinciple
from cai.constitution.guards import faults, near_duplicates
from cai.constitution.principles import Constitution, load_constitution
from cai.constitution.prompts import Question, critique_request, revision_request
from cai.contracts.assistants import HelpfulAssistant, ReviseInputs, ReviseSettings, Revisions
from cai.data.records import Demonstration, Prompt
from cai.data.sources import load_corpus
from cai.dialogue import Conversation, assistant, human
from cai.files import remove
from cai.jsonl import to_json
from cai.lm.generate import Sampling
from cai.lm.load import LanguageModel, has_adapter, load_chat
from cai.pipeline.stage import Job
from cai.results.revisions import Revision, RevisionRound, Yield
from cai.sampling.fitting import ANY_PROMPT, Fitting, Rooms
from cai.sampling.replies import SampledReply, sample_replies
from cai.sampling.shards import make_rows
from cai.sampling.speaker import load_speaker
from cai.seeds import draw, seed_of

ADAPTER = "helpful"
SILENCE = "..."
"""Stands for an empty text in the requests that follow it."""


def run(settings: ReviseSettings, inputs: ReviseInputs, out: Revisions, job: Job) -> None:
    """Write a row per prompt with every text, principle, seed and verdict."""
    corpus = load_corpus(settings.data)
    model = load_speaker(settings.model, job)
    reviser = _Reviser(settings, model, inputs.helpful, corpus.demonstrations)
    fitting = Fitting(model.chat, settings.data.too_long, "revise")
    corpus = fitting.corpus(corpus, _rooms(fitting, settings, corpus.demonstrations))
    prompts = corpus.red_team.train[: settings.revise.prompts]
    if out.rows.exists():
        rows = out.rows.read()
    else:
        sampled = make_rows(
            out.sampled,
            len(prompts),
            settings.revise.batch_size,
            lambda part: reviser.revise([prompts[i] for i in part]),
            "revise",
        )
        rows = mark_repeats(sampled, settings.revise)
        out.rows.write(rows)
    remove(out.sampled.path)
    out.yields.write(yield_table(rows, settings.revise))
    usable = sum(not step.faults for row in rows for step in row.rounds)
    steps = sum(len(row.rounds) for row in rows)
    job.tracker.metrics({"rows": len(rows), "yield": usable / max(1, steps)}, 0)
    job.tracker.table("revisions", to_json(rows, list[Revision]))


def notes(settings: ReviseSettings) -> list[str]:
    """Say which rows do not fit."""
    fitting = Fitting(load_chat(settings.model), settings.data.too_long, "revise")
    corpus = load_corpus(settings.data)
    return fitting.notes(corpus, _rooms(fitting, settings, corpus.demonstrations))


def _rooms(
    fitting: Fitting, settings: ReviseSettings, demonstrations: Sequence[Demonstration]
) -> Rooms:
    """Count the tokens that the longest critique and revision put behind a prompt."""
    revise = settings.revise
    rules = load_constitution(settings.constitution).revision
    critique = SILENCE if revise.critique else None
    longest = sorted(rules, key=lambda rule: len(rule.critique + rule.revision))[::-1]
    shots = few_shot_turns(demonstrations, longest[: revise.few_shots], revise.critique)
    asked = [revision_request(ANY_PROMPT, SILENCE, rule, critique) for rule in rules]
    said = 2 * revise.reply_tokens + (revise.critique_tokens if revise.critique else 0)
    return {"red_team": fitting.room_of(Question((*shots, *talk), "") for talk in asked) + said}


def few_shot_turns(
    shots: Sequence[Demonstration], rules: Sequence[RevisionPrinciple], critique: bool
) -> Conversation:
    """Return demonstrations as earlier turns, each under a principle of its own."""
    turns: Conversation = ()
    for shot, rule in zip(shots, rules, strict=False):
        said = shot.critique if critique else None
        asked = revision_request(shot.prompt.conversation, shot.response, rule, said)
        turns = (*turns, *asked, assistant(shot.revision))
    return turns


class _Reviser:
    """Makes the rows of one shard, which depend on nothing outside their own prompts."""

    def __init__(
        self,
        settings: ReviseSettings,
        model: LanguageModel,
        helpful: HelpfulAssistant,
        demonstrations: list[Demonstration],
    ) -> None:
        self.settings, self.seed, self.model = settings.revise, settings.seed, model
        self.constitution: Constitution = load_constitution(settings.constitution)
        self.adapter = ADAPTER if has_adapter(helpful.model) else None
        if self.adapter is not None:
            self.model.add_adapter(self.adapter, 0, helpful.model)
        self.fingerprint = helpful.fingerprint
        self.shots = demonstrations

    def revise(self, prompts: list[Prompt]) -> list[Revision]:
        """Sample first replies, then every round for all prompts together."""
        settings = self.settings
        talks = [prompt.conversation for prompt in prompts]
        reply_sampling = Sampling(settings.reply_tokens, temperature=settings.temperature)
        seeds = [self._seed(prompt, "reply") for prompt in prompts]
        replies = sample_replies(self.model, self.adapter, talks, seeds, reply_sampling)
        rules = [
            draw(
                self.constitution.revision,
                settings.rounds,
                self.seed,
                prompt.id,
                replacement=settings.replacement,
            )
            for prompt in prompts
        ]
        present = [reply.text for reply in replies]
        rounds: list[list[RevisionRound]] = [[] for _ in prompts]
        for number in range(1, settings.rounds + 1):
            steps = self._round(number, prompts, present, [drawn[number - 1] for drawn in rules])
            present = [step.revision for step in steps]
            for done, step in zip(rounds, steps, strict=True):
                done.append(step)
        return [self._row(*row) for row in zip(prompts, replies, rounds, strict=True)]

    def _round(
        self, number: int, prompts: list[Prompt], before: list[str], rules: list[RevisionPrinciple]
    ) -> list[RevisionRound]:
        """Criticise and revise the present reply of every prompt."""
        settings = self.settings
        rules_shown = [self._shot_rules(prompt, number) for prompt in prompts]
        shots = [self._few_shots(shown) for shown in rules_shown]
        talks = [prompt.conversation for prompt in prompts]
        critiques: list[str | None] = [None] * len(prompts)
        if settings.critique:
            asked = [
                shot + critique_request(talk, text or SILENCE, rule)
                for shot, talk, text, rule in zip(shots, talks, before, rules, strict=True)
            ]
            seeds = [self._seed(prompt, f"critique {number}") for prompt in prompts]
            sampling = Sampling(settings.critique_tokens, temperature=settings.temperature)
            said = sample_replies(self.model, self.adapter, asked, seeds, sampling)
            critiques = [reply.text or SILENCE for reply in said]
        asked = [
            shot + revision_request(talk, text or SILENCE, rule, critique)
            for shot, talk, text, rule, critique in zip(
                shots, talks, before, rules, critiques, strict=True
            )
        ]
        seeds = [self._seed(prompt, f"revision {number}") for prompt in prompts]
        sampling = Sampling(settings.reply_tokens, temperature=settings.temperature)
        revisions = sample_replies(self.model, self.adapter, asked, seeds, sampling)
        return [
            RevisionRound(
                round=number,
                principle=rules[i].id,
                shots={
                    shot.prompt.id: rule.id
                    for shot, rule in zip(self.shots, rules_shown[i], strict=False)
                },
                critique_seed=self._seed(prompts[i], f"critique {number}")
                if settings.critique
                else None,
                critique=critiques[i],
                revision_seed=seeds[i],
                revision=reply.text,
                finished=reply.finished,
                faults=self._faults(
                    reply, shots[i] + talks[i], before[i], (rules[i], critiques[i])
                ),
            )
            for i, reply in enumerate(revisions)
        ]

    def _faults(
        self,
        reply: SampledReply,
        said: Conversation,
        before: str,
        asked: tuple[RevisionPrinciple, str | None],
    ) -> list[str]:
        """Look for faults of one revision and its critique; an echo may be of a request too."""
        rule, critique = asked
        heard = (*said, human(rule.critique), human(rule.revision))
        guards = self.settings.guards
        return faults(reply.text, heard, before, reply.finished, guards, critique)

    def _shot_rules(self, prompt: Prompt, number: int) -> list[RevisionPrinciple]:
        n = min(self.settings.few_shots, len(self.shots))
        return draw(self.constitution.revision, n, self.seed, prompt.id, number, "shots")

    def _few_shots(self, rules: list[RevisionPrinciple]) -> Conversation:
        return few_shot_turns(self.shots, rules, self.settings.critique)

    def _row(self, prompt: Prompt, reply: SampledReply, rounds: list[RevisionRound]) -> Revision:
        return Revision(
            prompt_id=prompt.id,
            kind=prompt.kind,
            messages=prompt.conversation,
            seed=self._seed(prompt, "reply"),
            model=self.fingerprint,
            response=reply.text,
            finished=reply.finished,
            rounds=rounds,
        )

    def _seed(self, prompt: Prompt, what: str) -> int:
        return seed_of(self.seed, "revise", prompt.id, what)


def mark_repeats(rows: Sequence[Revision], settings: ReviseConfig) -> list[Revision]:
    """Add the fault of saying nearly what an earlier row says in the same round."""
    if not settings.guards.near_duplicate:
        return list(rows)
    rounds = [list(row.rounds) for row in rows]
    for number in range(settings.rounds):
        repeated = near_duplicates([steps[number].revision for steps in rounds])
        for steps, again in zip(rounds, repeated, strict=True):
            if again:
                step = steps[number]
                steps[number] = replace(step, faults=[*step.faults, "near_duplicate"])
    return [replace(row, rounds=steps) for row, steps in zip(rows, rounds, strict=True)]


def yield_table(rows: Sequence[Revision], settings: ReviseConfig) -> list[Yield]:
    """Count faults per round: what was left out of training, and why."""
    table = []
    for number in range(1, settings.rounds + 1):
        counts: Counter[str] = Counter()
        for row in rows:
            counts.update(row.rounds[number - 1].faults or ["usable"])
        table += [Yield(number, fault, n, len(rows)) for fault, n in sorted(counts.items())]
    return table
