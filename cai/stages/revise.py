"""Replies to red-team prompts, criticised and revised round by round."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from cai.artifacts import Artifact, read_jsonl, write_json, write_jsonl
from cai.config import Config, GuardsConfig, ReviseConfig, RevisionPrinciple
from cai.constitution.guards import faults, near_duplicates
from cai.constitution.principles import Constitution, load_constitution
from cai.constitution.prompts import Question, critique_request, revision_request
from cai.data.records import Demonstration, Prompt
from cai.data.sources import load_corpus
from cai.dialogue import Conversation, assistant, from_messages, human, to_messages
from cai.lm.generate import Sampling
from cai.lm.load import LanguageModel, has_adapter, load_model
from cai.sampling.fitting import ANY_PROMPT, Fitting
from cai.sampling.replies import Reply, sample_replies
from cai.sampling.shards import Row, make_rows
from cai.seeds import draw, seed_of
from cai.tracking import Tracker

ADAPTER = "helpful"
SILENCE = "..."
"""Stands for an empty text in the requests that follow it."""

Step = dict[str, Any]


def run(config: Config, inputs: dict[str, Artifact], out: Path, tracker: Tracker) -> None:
    """Write ``revisions.jsonl``, a row per prompt with every text, principle, seed and verdict."""
    settings = config.revise
    assert settings is not None
    corpus = load_corpus(config.data)
    reviser = _Reviser(config, settings, inputs["helpful"], corpus.demonstrations)
    fitting = Fitting(reviser.model.chat, config.data.too_long, "revise")
    corpus = fitting.corpus(corpus, reviser.room(fitting))
    prompts = corpus.red_team.train[: settings.prompts]
    sampled, done = out / "sampled.jsonl", out / "revisions.jsonl"
    if done.exists():
        rows = read_jsonl(done)
    else:
        rows = make_rows(
            sampled,
            len(prompts),
            settings.batch_size,
            lambda part: reviser.revise([prompts[i] for i in part]),
            "revise",
        )
        mark_repeats(rows, settings)
        write_jsonl(done, rows)
    sampled.unlink(missing_ok=True)
    table = yield_table(rows, settings)
    write_json(out / "yield.json", table)
    usable = sum(not step["faults"] for row in rows for step in row["rounds"])
    steps = sum(len(row["rounds"]) for row in rows)
    tracker.metrics({"rows": len(rows), "yield": usable / max(1, steps)}, 0)
    tracker.table("revisions", rows)


class _Reviser:
    """Makes the rows of one shard, which depend on nothing outside their own prompts."""

    def __init__(
        self,
        config: Config,
        settings: ReviseConfig,
        helpful: Artifact,
        demonstrations: list[Demonstration],
    ) -> None:
        self.settings, self.seed = settings, config.seed
        self.constitution: Constitution = load_constitution(config.constitution)
        self.model: LanguageModel = load_model(config.model, config.hardware)
        self.adapter = ADAPTER if has_adapter(helpful.path / "model") else None
        if self.adapter is not None:
            self.model.add_adapter(self.adapter, 0, helpful.path / "model")
        self.fingerprint = helpful.fingerprint
        self.shots = demonstrations

    def room(self, fitting: Fitting) -> int:
        """Count the tokens that the longest critique and revision put behind a prompt."""
        settings, rules = self.settings, self.constitution.revision
        critique = SILENCE if settings.critique else None
        longest = sorted(rules, key=lambda rule: len(rule.critique + rule.revision))[::-1]
        shots = self._few_shots(longest[: settings.few_shots])
        asked = [revision_request(ANY_PROMPT, SILENCE, rule, critique) for rule in rules]
        said = 2 * settings.reply_tokens + (settings.critique_tokens if settings.critique else 0)
        return fitting.room_of(Question((*shots, *talk), "") for talk in asked) + said

    def revise(self, prompts: list[Prompt]) -> list[Row]:
        """Sample first replies, then every round for all prompts together."""
        settings = self.settings
        talks = [prompt.conversation for prompt in prompts]
        reply_sampling = Sampling(settings.reply_tokens, temperature=settings.temperature)
        seeds = [self._seed(prompt, "reply") for prompt in prompts]
        replies = sample_replies(self.model, self.adapter, talks, seeds, reply_sampling)
        rows = [self._row(*pair) for pair in zip(prompts, replies, strict=True)]
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
        for number in range(1, settings.rounds + 1):
            before = [
                row["rounds"][-1]["revision"] if row["rounds"] else row["response"] for row in rows
            ]
            drawn = [rules[i][number - 1] for i in range(len(rows))]
            steps = self._round(number, prompts, before, drawn)
            for row, step in zip(rows, steps, strict=True):
                row["rounds"].append(step)
        return rows

    def _round(
        self, number: int, prompts: list[Prompt], before: list[str], rules: list[RevisionPrinciple]
    ) -> list[dict[str, Any]]:
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
            {
                "round": number,
                "principle": rules[i].id,
                "shots": {
                    shot.prompt.id: rule.id
                    for shot, rule in zip(self.shots, rules_shown[i], strict=False)
                },
                "critique_seed": self._seed(prompts[i], f"critique {number}")
                if settings.critique
                else None,
                "critique": critiques[i],
                "revision_seed": seeds[i],
                "revision": reply.text,
                "finished": reply.finished,
                "faults": self._faults(reply, shots[i] + talks[i], before[i], rules[i]),
            }
            for i, reply in enumerate(revisions)
        ]

    def _faults(
        self, reply: Reply, said: Conversation, before: str, rule: RevisionPrinciple
    ) -> list[str]:
        """Look for faults of one revision; an echo may be of a request too."""
        heard = (*said, human(rule.critique), human(rule.revision))
        return faults(reply.text, heard, before, reply.finished, self.settings.guards)

    def _shot_rules(self, prompt: Prompt, number: int) -> list[RevisionPrinciple]:
        n = min(self.settings.few_shots, len(self.shots))
        return draw(self.constitution.revision, n, self.seed, prompt.id, number, "shots")

    def _few_shots(self, rules: list[RevisionPrinciple]) -> Conversation:
        """Return demonstrations as earlier turns, each under a principle of its own."""
        turns: Conversation = ()
        for shot, rule in zip(self.shots, rules, strict=False):
            critique = shot.critique if self.settings.critique else None
            asked = revision_request(shot.prompt.conversation, shot.response, rule, critique)
            turns = (*turns, *asked, assistant(shot.revision))
        return turns

    def _row(self, prompt: Prompt, reply: Reply) -> Row:
        return {
            "prompt_id": prompt.id,
            "kind": prompt.kind,
            "messages": to_messages(prompt.conversation),
            "seed": self._seed(prompt, "reply"),
            "model": self.fingerprint,
            "response": reply.text,
            "finished": reply.finished,
            "rounds": [],
        }

    def _seed(self, prompt: Prompt, what: str) -> int:
        return seed_of(self.seed, "revise", prompt.id, what)


def mark_repeats(rows: list[Row], settings: ReviseConfig) -> None:
    """Add the fault of saying nearly what an earlier row says in the same round."""
    guards: GuardsConfig = settings.guards
    if not guards.near_duplicate:
        return
    for number in range(settings.rounds):
        steps: list[Step] = [row["rounds"][number] for row in rows]
        repeated = near_duplicates([step["revision"] for step in steps])
        for step, again in zip(steps, repeated, strict=True):
            step["faults"] += ["near_duplicate"] if again else []


def yield_table(rows: list[Row], settings: ReviseConfig) -> list[dict[str, Any]]:
    """Count faults per round: what was left out of training, and why."""
    table = []
    for number in range(1, settings.rounds + 1):
        counts: Counter[str] = Counter()
        for row in rows:
            counts.update(row["rounds"][number - 1]["faults"] or ["usable"])
        table += [
            {"round": number, "fault": fault, "rows": n, "of": len(rows)}
            for fault, n in sorted(counts.items())
        ]
    return table


def usable_revisions(row: Row, up_to_round: int, last_only: bool) -> list[tuple[Conversation, str]]:
    """Return a row's prompt with each revision that is fit for training."""
    talk = from_messages(row["messages"])
    steps = [step for step in row["rounds"] if step["round"] <= up_to_round]
    chosen = steps[-1:] if last_only else steps
    return [(talk, step["revision"]) for step in chosen if not step["faults"]]
